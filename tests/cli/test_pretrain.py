"""Masked pre-training from the command line: learning, resuming, pictures and fine-tuning."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import hiera_video as hv
from hiera_video.runtime.log import read_metrics

CONFIG = "configs/motion_hiera_micro_mae.yaml"


def rows(run: Path, split: str) -> list[dict[str, Any]]:
    return [row for row in read_metrics(run / "metrics.jsonl") if row["split"] == split]


@pytest.fixture(scope="module")
def command(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return a command of six steps without labels, a checkpoint after each, without `out_dir`."""
    unlabelled = tmp_path_factory.mktemp("lists") / "all.csv"
    unlabelled.write_text("".join(f"train_{number}.mp4\n" for number in range(12)))
    return [
        "train_net.py",
        "--cfg",
        CONFIG,
        f"data.train={unlabelled}",
        f"data.val={videos / 'val.csv'}",
        f"data.root={videos}",
        "data.workers=0",
        "train.epochs=2",
        "train.batch_size=4",
        "train.log_every=1",
        "train.save_minutes=1e-9",
        "train.keep=100",
        "train.eval_every=1",
        "model.drop_path_rate=0.1",
    ]


@pytest.fixture(scope="module")
def pretrained(command: list[str], tmp_path_factory: pytest.TempPathFactory, tool: Any) -> Path:
    run = tmp_path_factory.mktemp("pretrained") / "run"
    done = tool(*command, f"out_dir={run}")
    assert done.returncode == 0, done.stderr
    assert "75% masked" in done.stderr
    return run


def test_collapse_monitors_are_logged_and_pictures_drawn(pretrained: Path) -> None:
    train, val = rows(pretrained, "train"), rows(pretrained, "val")
    assert len(train) == 6 and {"loss", "feature_std", "effective_rank"} <= set(train[0])
    assert len(val) == 2 and val[1]["loss"] < val[0]["loss"] and val[0]["evaluated"] == 6
    assert "probe_top1" not in val[0]  # six videos are too few
    sheet = np.asarray(Image.open(pretrained / "reconstructions" / "latest.png"))
    assert sheet.shape[0] > 6 * 3 * 96 and sheet.std() > 0


def test_resuming_gives_the_same_losses(
    pretrained: Path, command: list[str], tmp_path: Path, tool: Any
) -> None:
    run = tmp_path / "run"
    shutil.copytree(pretrained, run, symlinks=True)
    for step in (3, 4, 5, 6):
        shutil.rmtree(run / "checkpoints" / f"step_{step:08d}")
    done = tool(*command, f"out_dir={run}")
    assert done.returncode == 0 and f"resuming {run} after step 2" in done.stderr
    for split, key in (("train", "loss_hex"), ("val", "loss")):
        assert [row[key] for row in rows(run, split)] == [
            row[key] for row in rows(pretrained, split)
        ]


def test_fine_tuning_from_a_pretrained_run(
    pretrained: Path, videos: Path, tmp_path: Path, tool: Any
) -> None:
    run = tmp_path / "run"
    done = tool(
        "train_net.py",
        "--cfg",
        "configs/motion_hiera_micro.yaml",
        f"model.pretrained={pretrained}",
        f"data.train={videos / 'train.csv'}",
        f"data.val={videos / 'val.csv'}",
        f"out_dir={run}",
        "train.epochs=1",
        "train.batch_size=4",
        "data.workers=0",
    )
    assert done.returncode == 0, done.stderr
    assert f"{pretrained}: loaded " in done.stderr
    assert "newly initialised: head, norm" in done.stderr
    loaded = hv.load(run)
    assert loaded.class_names == ("to the right", "to the left")
    predictions = hv.predict(loaded, videos / "val_0.mp4", topk=2)
    assert {prediction.label for prediction in predictions} == {"to the right", "to the left"}
    probabilities = [prediction.probability for prediction in predictions]
    assert sum(probabilities) == pytest.approx(1) and probabilities[0] >= probabilities[1]
    assert len(predictions[0].clip_seconds) == 2
    with pytest.raises(hv.HieraVideoError, match=r"train\.csv"):
        hv.predict(loaded, videos / "train.csv")


def test_continued_pretraining_starts_from_the_weights_of_a_run(
    pretrained: Path, command: list[str], tmp_path: Path, tool: Any
) -> None:
    run = tmp_path / "run"
    done = tool(*command, f"model.pretrained={pretrained}", f"out_dir={run}", "train.epochs=1")
    assert done.returncode == 0, done.stderr
    assert "none newly initialised" in done.stderr
    first, before = rows(run, "train")[0], rows(pretrained, "train")
    assert first["loss"] < (before[0]["loss"] + before[-1]["loss"]) / 2


def test_a_masked_autoencoder_cannot_classify(tool: Any) -> None:
    done = tool("train_net.py", "--cfg", CONFIG, "train.task=classify")
    assert done.returncode == 2
    words = "model.name=mae_hiera_micro_16x32 goes with train.task=pretrain, not classify"
    assert words in done.stderr


def test_the_mask_ratio_is_checked_before_training(tool: Any) -> None:
    done = tool("train_net.py", "--cfg", CONFIG, "mae.mask_ratio=1.0")
    assert done.returncode == 2 and "mae.mask_ratio=1.0: must be above 0 and below 1" in done.stderr
