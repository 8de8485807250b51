"""Masked pre-training by the tools: it learns, resumes hex for hex, shows itself, and fine-tuning starts from it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import hiera_video as hv

ROOT = Path(__file__).parents[2]
CONFIG = "configs/motion_hiera_micro_mae.yaml"


def rows(run: Path, split: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row for row in lines if row["split"] == split]


@pytest.fixture(scope="module")
def unlabelled(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of paths alone: pre-training needs no labels."""
    folder = tmp_path_factory.mktemp("lists")
    path = folder / "all.csv"
    path.write_text("".join(f"train_{number}.mp4\n" for number in range(12)))
    return path


@pytest.fixture(scope="module")
def common(videos: Path, unlabelled: Path) -> list[str]:
    return [
        *(
            f"data.train={unlabelled}",
            f"data.val={videos / 'val.csv'}",
            f"data.root={videos}",
            "data.workers=0",
        ),
        *(
            "train.epochs=2",
            "train.batch_size=4",
            "train.log_every=1",
            "train.save_minutes=1e-9",
            "train.eval_every=1",
        ),
        "model.drop_path_rate=0.1",
    ]


@pytest.fixture(scope="module")
def pretrained(common: list[str], tmp_path_factory: pytest.TempPathFactory, tool: Any) -> Path:
    run = tmp_path_factory.mktemp("pretrained") / "run"
    done = tool("train_net.py", "--cfg", CONFIG, *common, f"out_dir={run}")
    assert done.returncode == 0, done.stderr
    assert "75% masked" in done.stderr
    return Path(run)


def test_it_logs_collapse_monitors_and_draws_pictures(pretrained: Path) -> None:
    train, val = rows(pretrained, "train"), rows(pretrained, "val")
    assert len(train) == 6 and {"loss", "feature_std", "effective_rank"} <= set(train[0])
    assert len(val) == 2 and val[1]["loss"] < val[0]["loss"] and val[0]["evaluated"] == 6
    sheet = np.asarray(Image.open(pretrained / "reconstructions" / "latest.png"))
    assert sheet.shape[0] > 6 * 3 * 96 and sheet.std() > 0


def test_killed_and_started_again_it_loses_nothing(
    pretrained: Path, common: list[str], tmp_path: Path, tool: Any
) -> None:
    command = [
        sys.executable,
        "tools/train_net.py",
        "--cfg",
        CONFIG,
        *common,
        f"out_dir={tmp_path}",
    ]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if (tmp_path / "metrics.jsonl").exists() and len(rows(tmp_path, "train")) >= 2:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.01)
    assert process.wait() == -signal.SIGKILL
    again = tool("train_net.py", "--cfg", CONFIG, *common, f"out_dir={tmp_path}")
    assert again.returncode == 0, again.stderr
    for split, key in (("train", "loss_hex"), ("val", "loss")):
        assert [row[key] for row in rows(tmp_path, split)] == [
            row[key] for row in rows(pretrained, split)
        ]


def test_fine_tuning_starts_from_it_and_answers(
    pretrained: Path, videos: Path, tmp_path: Path, tool: Any
) -> None:
    run = tmp_path / "run"
    done = tool(
        *(
            "train_net.py",
            "--cfg",
            "configs/motion_hiera_micro.yaml",
            f"model.pretrained={pretrained}",
        ),
        *(f"data.train={videos / 'train.csv'}", f"data.val={videos / 'val.csv'}", f"out_dir={run}"),
        *("train.epochs=1", "train.batch_size=4", "data.workers=0"),
    )
    assert done.returncode == 0, done.stderr
    assert f"{pretrained}: loaded " in done.stderr and "newly initialised: head, norm" in done.stderr
    loaded = hv.load(run)
    assert loaded.class_names == ("to the right", "to the left")
    answers = hv.predict(loaded, videos / "val_0.mp4", topk=2)
    assert {answer.label for answer in answers} == {"to the right", "to the left"}
    assert sum(answer.probability for answer in answers) == pytest.approx(1)
    assert answers[0].probability >= answers[1].probability and len(answers[0].clip_seconds) == 2
    with pytest.raises(hv.HieraVideoError, match=r"train\.csv"):
        hv.predict(loaded, videos / "train.csv")


def test_a_classifier_cannot_be_pretrained(tool: Any) -> None:
    done = tool("train_net.py", "--cfg", CONFIG, "train.task=classify")
    assert done.returncode == 2
    assert (
        "model.name=mae_hiera_micro_16x32 goes with train.task=pretrain, not classify"
        in done.stderr
    )


def test_the_mask_ratio_is_checked_before_anything_starts(tool: Any) -> None:
    done = tool("train_net.py", "--cfg", CONFIG, "mae.mask_ratio=1.0")
    assert done.returncode == 2 and "mae.mask_ratio=1.0: must be above 0 and below 1" in done.stderr
