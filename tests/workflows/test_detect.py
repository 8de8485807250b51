"""Action detection from lists of boxes to results: training, resume, test."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import hiera_video as hv
from hiera_video.cli import test as test_command
from hiera_video.cli import train as train_command
from hiera_video.errors import ConfigError, ManifestError
from hiera_video.models.detection import HieraDetector
from hiera_video.runtime.log import read_metrics
from hiera_video.video.encode import write_video
from hiera_video.workflows.export_source import check_exportable

CONFIG = """\
model: {name: hiera_micro_16x32, pretrained: none, drop_path_rate: 0.1, head_dropout: 0.1}
data: {train: train.csv, val: val.csv, workers: 0}
clip: {num_frames: 16, frame_stride: 1, target_fps: null}
augment: {scale: [0.6, 1.0], flip: 0.5, box_jitter: 0.1}
optim: {lr: 1.0e-3, layer_decay: 0.8}
train: {task: detect, epochs: 2, batch_size: 4, log_every: 1}
test: {batch_size: 2}
detect: {start_seconds: 900, boxes: detected.csv, excluded: excluded.csv}
out_dir: run
"""
TRAIN = """\
film,901,0.1,0.1,0.5,0.5,1,0
film,901,0.1,0.1,0.5,0.5,12,0
film,901,0.5,0.5,1,1,80,1
film,901.5,0,0,1,1,12,0
film,902,0.2,0.2,0.7,0.8,1,0
film,902.5,0,0,0.05,0.05,80,0
film,903,0.3,0.3,0.6,0.9,12,0
film,903.2,0.1,0.2,0.9,1,80,0
film,903.5
film,903.8,0,0,0.5,1,1,0
film,903.9,0,0,1,1,1,0
"""
VAL = """\
film,901.2,0.1,0.1,0.5,0.5,1,0
film,901.2,0.6,0.1,0.9,0.5,12,0
film,902.2,0.2,0.2,0.8,0.8,80,0
"""
DETECTED = """\
film,901.2,0.11,0.1,0.5,0.5,0.95
film,901.2,0,0,0.5,0.5,0.2
film,902.2,0.2,0.2,0.8,0.8,0.9
film,902.7,0,0,0.4,0.4,0.9
"""
MAP = 'item { name: "bend" id: 1 }\nitem { name: "stand" id: 12 }\nitem { name: "eat" id: 80 }\n'


@pytest.fixture(scope="session")
def boxes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration, lists of boxes and a wide film of 4 seconds."""
    folder = tmp_path_factory.mktemp("detection")
    frames = np.random.default_rng(0).integers(0, 255, (40, 36, 64, 3), dtype=np.uint8)
    write_video(folder / "film.mp4", frames, fps=10)
    for name, text in (
        ("train.csv", TRAIN),
        ("val.csv", VAL),
        ("detected.csv", DETECTED),
        ("excluded.csv", "film,0903.9\n"),
        ("actions.pbtxt", MAP),
        ("config.yaml", CONFIG),
    ):
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="session")
def detection_run(boxes_folder: Path) -> Path:
    """The folder of a run of 4 steps; the current folder must be its parent."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(boxes_folder)
        assert train_command.main(["--cfg", "config.yaml"]) == 0
    return boxes_folder / "run"


@pytest.fixture
def in_folder(boxes_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(boxes_folder)
    return boxes_folder


def rows(run: Path, split: str) -> list[dict[str, Any]]:
    return [row for row in read_metrics(run / "metrics.jsonl") if row["split"] == split]


@pytest.mark.slow
def test_training_logs_boxes_and_validates(detection_run: Path) -> None:
    steps = rows(detection_run, "train")
    assert [step["step"] for step in steps] == [0, 1, 2, 3]
    # 8 key frames with 8 boxes; each step takes 4 of them, each epoch all
    for epoch in (steps[:2], steps[2:]):
        assert sum(step["boxes"] + step["boxes_outside"] for step in epoch) * 4 == 8
    assert all(0.1 < step["loss"] < 3 for step in steps)
    last = rows(detection_run, "val")[-1]
    assert (last["boxes"], last["evaluated"], last["of"]) == (3, 3, 3)
    assert 0 <= last["mAP"] <= 100
    meta = json.loads((detection_run / "checkpoints/last/meta.json").read_text())
    assert meta["class_names"] == ["bend", "stand", "eat"] and meta["multi_label"]
    assert meta["lists"]["train"]["videos"] == 8 and "labels" in meta["lists"]["train"]


@pytest.mark.slow
def test_a_resumed_run_is_the_same_to_the_bit(detection_run: Path, in_folder: Path) -> None:
    shutil.copytree(detection_run, "resumed", symlinks=True)
    newest = sorted(Path("resumed/checkpoints").glob("step_*"))[-1]
    shutil.rmtree(newest)
    assert train_command.main(["--cfg", "config.yaml", "out_dir=resumed"]) == 0
    before, after = (
        load_file(next(Path(run, "checkpoints", newest.name).glob("*.safetensors")))
        for run in ("run", "resumed")
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_micro_batches_do_not_change_the_loss(detection_run: Path, in_folder: Path) -> None:
    changes = ["model.head_dropout=0", "data.val=null", "train.epochs=1"]
    for run, accumulate in (("whole", 1), ("parts", 4)):
        options = [*changes, f"train.accumulate={accumulate}", f"out_dir={run}"]
        assert train_command.main(["--cfg", "config.yaml", *options]) == 0
    whole, parts = (
        [step["loss"] for step in rows(Path(run), "train")] for run in ("whole", "parts")
    )
    assert whole == pytest.approx(parts, rel=1e-5)


@pytest.mark.slow
def test_other_boxes_are_another_list(detection_run: Path, in_folder: Path) -> None:
    Path("moved.csv").write_text(TRAIN.replace("0.2,0.2,0.7,0.8", "0.2,0.2,0.7,0.9"))
    with pytest.raises(ConfigError, match=r"other lists: data.train \(other videos or segments\)"):
        train_command.main(["--cfg", "config.yaml", "data.train=moved.csv"])


@pytest.mark.slow
def test_the_test_writes_results_and_resumes(
    detection_run: Path, in_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert test_command.main(["--run", "run"]) == 0
    results = json.loads((detection_run / "results.json").read_text())
    assert (results["key_frames"], results["boxes"], results["scored_boxes"]) == (2, 3, 3)
    assert (results["evaluated"], results["crops"], results["boxes_outside"]) == (3, 3, 0)
    assert [row["name"] for row in results["classes"]] == ["bend", "stand", "eat"]
    assert results["box_recall"] == pytest.approx(66.6667)
    lines = (detection_run / "predictions.csv").read_text().splitlines()
    assert len(lines) == 9 and lines[0].startswith("film,901.2,0.110,0.100,0.500,0.500,1,0.")
    assert (detection_run / "report.html").is_file()
    assert "3 boxes: mAP " in caplog.text and "(evaluated 3 of 3 key frames)" in caplog.text
    assert not (detection_run / ".test.partial").exists()


@pytest.mark.slow
def test_a_dry_run_and_unreadable_key_frames(
    detection_run: Path, in_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    Path("broken.mp4").write_text("no video")
    Path("half.csv").write_text("film,901.2,0.1,0.1,0.5,0.5,1,0\nbroken,901,0,0,1,1,1,0\n")
    options = ["--run", "run", "data.test=half.csv", "detect.boxes=null", "out_dir=half"]
    options += ["test.checkpoint=run"]
    assert test_command.main([*options, "--dry-run"]) == 0
    assert "dry run: scores [boxes, classes] [[1, 3]]; nothing written" in caplog.text
    assert not Path("half").exists()
    assert test_command.main(options) == 3
    assert "half.csv:2 is unreadable: " in caplog.text
    assert "1 unreadable key frame: more than test.max_broken=0.05" in caplog.text
    results = json.loads(Path("half/results.json").read_text())
    assert results["evaluated"] == 1 and results["broken"][0]["reason"] == "container"


@pytest.mark.slow
def test_the_centre_crop_names_the_boxes_that_it_misses(
    detection_run: Path, in_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Path("corner.csv").write_text("film,901.2,0,0,0.1,0.1,0.9\nother,1,0,0,1,1,0.9\n")
    with pytest.raises(ManifestError, match=r"corner.csv:2: no video named 'other' in "):
        test_command.main(["--run", "run", "detect.boxes=corner.csv"])
    Path("corner.csv").write_text("film,901.2,0,0,0.1,0.1,0.9\n")
    options = ["detect.boxes=corner.csv", "test.crops=1", "out_dir=centre"]
    assert test_command.main(["--run", "run", "test.checkpoint=run", *options]) == 0
    assert "1 boxes lie outside the centre crop" in caplog.text
    assert json.loads(Path("centre/results.json").read_text())["boxes_outside"] == 1


@pytest.mark.slow
def test_a_detector_starts_from_a_classifier_and_loads(
    detection_run: Path, in_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    classifier = hv.create_model("hiera_micro_16x32", num_classes=7)
    torch.save(classifier.state_dict(), "classifier.pth")
    options = ["--dry-run", "model.pretrained=classifier.pth", "out_dir=dry", "train.accumulate=2"]
    assert train_command.main(["--cfg", "config.yaml", *options]) == 0
    assert "head newly initialised: the file has 7 classes, the model 3" in caplog.text
    assert "clips [1, 3, 16, 32, 32] × 2 micro-batches, loss" in caplog.text
    assert not Path("dry").exists()
    run = hv.load("run")
    assert isinstance(run.model, HieraDetector) and run.class_names == ("bend", "stand", "eat")
    with pytest.raises(
        ConfigError, match=r"run: a run of action detection scores boxes, not whole videos; use hv"
    ):
        hv.predict(run, "film.mp4")
    with pytest.raises(
        ConfigError,
        match=r"run: is a run of action detection, and programs take no boxes; export its features"
        r": --model hiera_micro_16x32 --checkpoint run --output-of features",
    ):
        check_exportable("run", None)


def test_lists_that_do_not_fit(in_folder: Path) -> None:
    base = ["--cfg", "config.yaml", "--dry-run"]
    Path("labels").mkdir(exist_ok=True)
    Path("labels/other.txt").write_text("bend\nstand\nrun\n")
    Path("beyond.csv").write_text("film,905,0,0,1,1,1\nfilm,906,0,0,1,1,1\n")
    for options, words in (
        (["data.train=none.csv"], r"data.train=none.csv: no such file or folder; set data.train t"),
        (["detect.train_boxes=none.csv"], r"detect.train_boxes=none.csv: no such file; name a l"),
        (
            ["detect.label_map=labels/other.txt"],
            r"train.csv:1: action '1' is no class|train.csv:2: action '12' is no class of labels/o",
        ),
        (
            ["data.train=beyond.csv"],
            r"^beyond.csv:2: second 906 lies beyond the end of .*film.mp4, 904.00; correct the lin"
            r"es, or set detect.start_seconds to the second at which the videos start \(now 900\)$",
        ),
    ):
        with pytest.raises(ManifestError, match=words):
            train_command.main([*base, *options])
