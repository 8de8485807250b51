"""The numbers of benchmarks/detection_motion.py, from results made up."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import numpy as np


def test_boxes_of_other_movers_and_of_the_whole_frame(tmp_path: Path) -> None:
    benchmark = import_module("detection_motion")
    source, target = tmp_path / "val.csv", tmp_path / "other.csv"
    source.write_text("1,0.8,0,0,0.1,0.1,3,0\n1,0.8,0.5,0.5,0.6,0.6,5,1\n2,1.0,0,0,0.2,0.2,1,0\n")
    benchmark.write_other_boxes(source, target, "moved")
    assert target.read_text() == (
        "1,0.8,0.5,0.5,0.6,0.6,3,0\n1,0.8,0,0,0.1,0.1,5,1\n2,1.0,0,0,0.2,0.2,1,0\n"
    )
    benchmark.write_other_boxes(source, target, "whole_frame")
    assert target.read_text() == "1,0.8,0,0,1,1,3,0\n1,0.8,0,0,1,1,5,1\n2,1.0,0,0,1,1,1,0\n"
    assert benchmark.labels_of_videos(source) == {"1": [2, 4], "2": [0]}


def test_accuracy_of_whole_frames(tmp_path: Path) -> None:
    """Of two videos with five movers, the highest score of one is a mover's class: 1 of 5."""
    benchmark = import_module("detection_motion")
    folder = tmp_path / "whole_frames"
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps({"mAP": 70.0}))
    logits = np.array([[[0, 1, 0], [0, 1, 0]], [[3, 0, 0], [0, 0, 2]]], np.float32)
    np.savez(folder / "predictions.npz", rows=np.array([1, 0]), logits=logits)
    found = benchmark.whole_frame_accuracy(tmp_path, {"1": [1, 2], "2": [0, 2, 1]})
    assert found == {"mAP of the motions in a video": 70.0, "accuracy for a mover": 20.0}
