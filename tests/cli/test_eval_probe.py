"""`train.task=probe` on real videos: features are kept, settings come from the training videos."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import hiera_video as hv
from hiera_video.config.load import load_config
from hiera_video.data.dataset import TestViews
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.errors import ConfigError, ManifestError
from hiera_video.models.factory import create_model
from hiera_video.models.weights.save import save_pretrained
from hiera_video.workflows.build import read_split, resolve_num_classes
from hiera_video.workflows.probe import format_table, probe_run

ROOT = Path(__file__).parents[2]
CONFIG = "configs/motion_hiera_micro.yaml"


@pytest.fixture(scope="module")
def common(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides for probes of a masked autoencoder's weights."""
    torch.manual_seed(0)
    weights = tmp_path_factory.mktemp("mae") / "mae"
    save_pretrained(create_model("mae_hiera_micro_16x32"), weights)
    return [
        "train.task=probe",
        f"model.pretrained={weights}",
        f"data.train={videos / 'train.csv'}",
        f"data.val={videos / 'val.csv'}",
        "data.workers=0",
        "test.batch_size=4",
        "probe.epochs=3",
        "probe.neighbours=[1,3]",
        "probe.temperatures=[0.1]",
        "probe.lrs=[1e-3,1e-2]",
        "probe.weight_decays=[0.0]",
    ]


def run(out: Path, *overrides: str, dry_run: bool = False) -> dict[str, Any]:
    config = load_config(CONFIG, [*overrides, f"out_dir={out}"])
    train = read_split(config, "train")
    val = read_split(config, "val") if config.data.val else None
    classes = resolve_num_classes(config, train, *([val] if val else []))
    assert probe_run(config, train, val, classes, dry_run=dry_run) == 0
    if dry_run:
        return {}
    results: dict[str, Any] = json.loads((out / "probe" / "probes.json").read_text())
    return results


def stores(out: Path, name: str) -> list[hv.FeatureStore]:
    """Return the feature stores of `train` or `val`."""
    return [hv.FeatureStore(path) for path in (out / "probe" / "features" / name).iterdir()]


Finished = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def finished(common: list[str], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    out = tmp_path_factory.mktemp("probed")
    return out, run(out, *common)


def test_results(finished: Finished) -> None:
    _, results = finished
    assert (results["train_videos"], results["evaluated"], results["of"]) == (12, 6, 6)
    assert results["views"] == "2x1"
    assert [row["probe"] for row in results["probes"]] == ["knn", "linear", "attentive"]
    for row in results["probes"]:
        assert len(row["sweep"]) == 2 and 0 <= row["top1"] <= 100
        assert row["intervals"]["top1"][0] <= row["top1"] <= row["intervals"]["top1"][1]
        best = max(row["sweep"], key=lambda tried: tried["accuracy"])
        assert row["setting"] == {key: value for key, value in best.items() if key != "accuracy"}
    table = format_table(results)
    assert len(table) == 4 and "(evaluated 6 of 6)" in table[0]


def test_stored_features_are_the_tokens_of_all_views_of_a_test(
    common: list[str], videos: Path, tmp_path: Path
) -> None:
    overrides = [*common, "probe.kinds=[attentive]", "probe.crops=3", "probe.epochs=1"]
    run(tmp_path, *overrides)
    config = load_config(CONFIG, overrides)
    (store,) = stores(tmp_path, "val")
    transform = EvalTransform(32, 3, config.augment.mean, config.augment.std)
    views = TestViews(read_split(config, "val"), config.clip, transform, num_clips=2)
    model: Any = create_model("hiera_micro_16x32", pretrained=config.model.pretrained).eval()
    for row in (0, 5):
        with torch.inference_mode():
            expected = model.forward_features(torch.stack(list(views[row].crops)))
        assert store[row].features.shape == (6, 8, 2, 2, 256)
        assert torch.allclose(store[row].features, expected, atol=1e-5)


def test_finished_shards_are_not_extracted_again(
    finished: Finished, common: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before, results = finished
    out = tmp_path / "killed"
    shutil.copytree(before, out)
    shards = sorted((out / "probe/features/train").rglob("shards/*/*.json"))
    assert len(shards) == 3
    shards[1].unlink()  # as after a kill
    with caplog.at_level(logging.INFO):
        assert run(out, *common) == results
    assert "resuming: 8 of 12 videos already finished" in caplog.text
    assert "resuming: 6 of 6 videos already finished" in caplog.text


def test_labels_of_the_test_videos_do_not_choose_settings(
    finished: Finished, common: list[str], videos: Path, tmp_path: Path
) -> None:
    swapped = tmp_path / "swapped.csv"
    lines = [line.split() for line in (videos / "val.csv").read_text().splitlines()]
    swapped.write_text("".join(f"{path} {1 - int(label)}\n" for path, label in lines))
    other = run(tmp_path, *common, f"data.val={swapped}", f"data.root={videos}")
    for first, second in zip(finished[1]["probes"], other["probes"], strict=True):
        assert first["setting"] == second["setting"] and first["sweep"] == second["sweep"]
        # the same answers, and the other label for each
        assert second["top1"] == pytest.approx(100 - first["top1"], abs=1e-3)


def test_unreadable_videos_are_counted_and_mean_tokens_suffice_without_attention(
    common: list[str], videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    for name in ("val_0.mp4", "val_1.mp4"):
        shutil.copy(videos / name, tmp_path)
    listing = tmp_path / "val.csv"
    listing.write_text("bad.mp4 0\nval_0.mp4 0\nval_1.mp4 1\n")
    results = run(tmp_path / "run", *common, f"data.val={listing}", "probe.kinds=[linear]")
    assert (results["evaluated"], results["of"]) == (2, 3)
    assert "row 0 is unreadable (container): " in caplog.text and "bad.mp4" in caplog.text
    (store,) = stores(tmp_path / "run", "train")
    assert store.matrix().shape == (24, 256)  # one mean token per view


def test_unreadable_videos_are_tried_again(common: list[str], videos: Path, tmp_path: Path) -> None:
    line = {"path": str(videos / "val_1.mp4"), "reason": "hung"}
    (tmp_path / "quarantine.jsonl").write_text(json.dumps(line) + "\n")
    assert run(tmp_path, *common, "probe.kinds=[knn]")["evaluated"] == 5
    (tmp_path / "quarantine.jsonl").unlink()
    assert run(tmp_path, *common, "probe.kinds=[knn]")["evaluated"] == 6


def test_a_changed_file_is_read_again(common: list[str], videos: Path, tmp_path: Path) -> None:
    shutil.copytree(videos, tmp_path / "videos")
    lists = [f"data.{name}={tmp_path / 'videos' / name}.csv" for name in ("train", "val")]
    run(tmp_path, *common, *lists, "probe.kinds=[knn]")
    (before,) = stores(tmp_path, "val")
    shutil.copy(videos / "val_1.mp4", tmp_path / "videos" / "val_0.mp4")
    run(tmp_path, *common, *lists, "probe.kinds=[knn]")
    assert not torch.equal(before[0].features, before[1].features)
    equal = [torch.equal(store[0].features, store[1].features) for store in stores(tmp_path, "val")]
    assert sorted(equal) == [False, True]  # the old store, and one with the same video twice


def test_other_frames_of_the_same_folders_have_other_features(
    common: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for video in range(8):
        folder = tmp_path / str(video)
        folder.mkdir()
        for number in range(16):
            for name, level in (("img", 60 * (video % 2)), ("flow", 100)):
                pixels = np.full((36, 36, 3), level + number, np.uint8)
                Image.fromarray(pixels).save(folder / f"{name}_{number:05d}.jpg")
    listing = tmp_path / "list.csv"
    listing.write_text("".join(f"{video} {video % 2}\n" for video in range(8)))
    overrides = [
        *common,
        f"data.train={listing}",
        f"data.val={listing}",
        "data.decoder=frames",
        "probe.kinds=[knn]",
    ]
    caplog.set_level(logging.INFO)
    # the `flow` frames are equal in both classes
    for template, top1 in (("img_%05d.jpg", 100), ("flow_%05d.jpg", 50)):
        found = run(tmp_path / "run", *overrides, f"data.frame_template={template}")
        assert found["probes"][0]["top1"] == top1 and "already finished" not in caplog.text


def test_a_dry_run_writes_nothing(
    common: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        run(tmp_path / "dry", *common, dry_run=True)
    assert "dry run: features [videos, views, tokens, channels] [2, 2, " in caplog.text
    assert not (tmp_path / "dry").exists()


def test_invalid_lists_and_settings_are_refused(
    common: list[str], videos: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        ConfigError,
        match=r"the features of 18 videos take .* GB, over probe.max_gigabytes=1e-06; set",
    ):
        run(tmp_path, *common, "probe.max_gigabytes=1e-6")
    with pytest.raises(
        ConfigError, match=r"data.val is not set; train.task=probe tests on the videos of data.val"
    ):
        run(tmp_path, *common, "data.val=null")
    listing = tmp_path / "several.csv"
    listing.write_text("train_0.mp4 0;1\ntrain_1.mp4 1\n")
    with pytest.raises(ManifestError, match="has several labels per video; probes need exactly"):
        run(tmp_path, *common, f"data.train={listing}", f"data.root={videos}")
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    (tmp_path / "bad.csv").write_text("bad.mp4 0\n")
    with pytest.raises(ManifestError, match="none of its 1 video can be read; see the log"):
        run(tmp_path, *common, f"data.val={tmp_path / 'bad.csv'}")
    with pytest.raises(ConfigError, match=r"probe.clips=3: clip.sampling=segments has 1 view"):
        run(tmp_path, *common, "clip.sampling=segments", "probe.clips=3")
    with pytest.raises(
        ConfigError, match=r"mae_hiera_micro_16x32 goes with train.task=pretrain, not probe"
    ):
        load_config("configs/motion_hiera_micro_mae.yaml", ["train.task=probe"])


def test_the_command(common: list[str], tool: Any, tmp_path: Path) -> None:
    arguments = ["--cfg", CONFIG, *common, f"out_dir={tmp_path}"]
    done = tool("train_net.py", *arguments, "probe.kinds=[knn]")
    assert done.returncode == 0, done.stderr
    assert "chosen on the training videos" in done.stderr and "95 % interval" in done.stderr
    done = tool("train_net.py", *arguments, "model.pretrained=null")
    assert done.returncode == 2 and "model.pretrained is not set" in done.stderr


@pytest.mark.slow
def test_two_processes_give_the_same_results(
    finished: Finished, common: list[str], tmp_path: Path
) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, "tools/train_net.py", "--cfg", CONFIG, *common, f"out_dir={tmp_path}"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "probe" / "probes.json").read_text()) == finished[1]
