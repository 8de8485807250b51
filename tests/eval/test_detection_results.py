"""Results and report of a test of action detection, from scores made up for a small list."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hiera_video.data.dataset import UnreadableVideo
from hiera_video.data.detection.key_frame import BoxManifest
from hiera_video.data.detection.manifest import BoxListOptions, read_box_list, read_scored_boxes
from hiera_video.eval.detection_report import label_frames, write_detection_report
from hiera_video.eval.detection_results import (
    BoxScores,
    DetectionSetup,
    ava_lines,
    detection_metrics,
    write_detection_results,
)
from hiera_video.video.encode import write_video

SETUP = DetectionSetup(model="m", checkpoint="c", crops=1, precision="fp32")
LEFT, RIGHT, MIDDLE = "0.0,0.0,0.4,1.0", "0.6,0.0,1.0,1.0", "0.3,0.2,0.7,0.9"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two videos of grey frames, their labelled boxes, and boxes that a detector found."""
    (tmp_path / "videos").mkdir()
    for name in ("a", "b"):
        frames = (np.full((80, 96, 3), 20 * number, np.uint8) for number in range(10))
        write_video(tmp_path / "videos" / f"{name}.mp4", frames, fps=10)
    (tmp_path / "labels.txt").write_text("up\ndown\nstay\n")
    (tmp_path / "train.csv").write_text(
        f"a,0.5,{LEFT},0,p\na,0.5,{RIGHT},1,q\na,0.5,{RIGHT},2,q\nb,0.2,{MIDDLE},1,p\n"
    )
    (tmp_path / "boxes.csv").write_text(
        f"a,0.5,0.0,0.0,0.38,1.0,0.95\na,0.5,{RIGHT},0.9\nb,0.2,{LEFT},0.9\n"
    )
    return tmp_path


@pytest.fixture
def truth(folder: Path) -> BoxManifest:
    return read_box_list(folder / "train.csv", BoxListOptions())


@pytest.fixture
def found(folder: Path) -> BoxScores:
    boxes = read_scored_boxes(folder / "boxes.csv", BoxListOptions(), min_score=0.8)
    scores = (
        np.array([[0.2, 0.7, 0.1], [0.1, 0.3, 0.9]], np.float32),
        np.array([[0.1, 0.6, 0.2]], np.float32),
    )
    return BoxScores(frames=boxes.records, scores=scores)


def test_metrics(found: BoxScores, truth: BoxManifest) -> None:
    metrics = detection_metrics(found, truth)
    # up: right at its only score, with two lower wrong ones; down: wrong at 0.7 and 0.6, then one
    # of two right; stay: right first
    assert [row["average_precision"] for row in metrics["classes"]] == [100.0, 16.6667, 100.0]
    assert metrics["mAP"] == metrics["mAP_all_scores"] == pytest.approx(72.2222, abs=1e-4)
    assert [row["name"] for row in metrics["classes"]] == ["up", "down", "stay"]
    assert metrics["box_accuracy"] == pytest.approx(100 / 3, abs=1e-4)
    assert metrics["box_recall"] == pytest.approx(200 / 3, abs=1e-4)
    assert (metrics["key_frames"], metrics["boxes"], metrics["scored_boxes"]) == (2, 3, 3)
    assert [(pair["label"], pair["answer"]) for pair in metrics["confusion_pairs"]] == [
        ("up", "down"),
        ("down", "(not found)"),
    ]


def test_metrics_of_counted_classes(found: BoxScores, truth: BoxManifest) -> None:
    metrics = detection_metrics(found, truth, [0, 2])
    assert metrics["mAP"] == 100.0 and [row["index"] for row in metrics["classes"]] == [0, 2]
    assert metrics["boxes"] == 2  # the box of b has only the class that does not count
    assert metrics["box_accuracy"] == 100.0


def test_files(found: BoxScores, truth: BoxManifest, folder: Path) -> None:
    unreadable = UnreadableVideo(row=1, path="/x/b.mp4", reason="truncated", message="-")
    read = BoxScores(frames=found.frames[:1], scores=found.scores[:1], unreadable=(unreadable,))
    results = write_detection_results(folder / "run", SETUP, read, truth, [0, 1])
    assert json.loads((folder / "run" / "results.json").read_text()) == results
    assert results["broken"] == [{"row": 1, "path": "/x/b.mp4", "reason": "truncated"}]
    assert (results["evaluated"], results["key_frames"], results["model"]) == (1, 2, "m")
    assert (folder / "run" / "predictions.csv").read_text() == (
        "a,0.5,0.000,0.000,0.380,1.000,0,0.2000\n"
        "a,0.5,0.000,0.000,0.380,1.000,1,0.7000\n"
        "a,0.5,0.600,0.000,1.000,1.000,0,0.1000\n"
        "a,0.5,0.600,0.000,1.000,1.000,1,0.3000\n"
    )


def test_names_and_seconds_are_written_as_lists_have_them(found: BoxScores) -> None:
    frames = [
        replace(found.frames[1], video=video, second=second)
        for video, second in (("-5KQ66BBWC4", 902.0), ("a,b", 1234.5678))
    ]
    lines = "".join(ava_lines(frames, [found.scores[1]] * 2, {1: 80}))
    assert lines == (
        "-5KQ66BBWC4,0902,0.000,0.000,0.400,1.000,80,0.6000\n"
        '"a,b",1234.5678,0.000,0.000,0.400,1.000,80,0.6000\n'
    )


def test_labelled_frames(found: BoxScores, truth: BoxManifest) -> None:
    first, second = label_frames(found, truth)
    assert [box.predicted for box in first.boxes] == ["down", "stay"]
    assert [box.correct for box in first.boxes] == [False, True]
    assert first.boxes[1].labels == ("down", "stay")
    assert first.mistake == pytest.approx(0.7)
    assert second.boxes[0].predicted == "(not found)" and second.mistake == 1.0


def test_the_page_shows_boxes_on_key_frames(
    found: BoxScores, truth: BoxManifest, folder: Path
) -> None:
    results = write_detection_results(folder, SETUP, found, truth)
    page = write_detection_report(folder, results, found, truth).read_text()
    urls = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="key frame of (\w)', page)
    assert [name for _, name in urls] == ["b", "a"]  # most confident mistakes first
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(urls[1][0]))).convert("RGB"))
    assert pixels.shape == (480, 576, 3)
    assert pixels[240, 288].tolist() == pytest.approx([100, 100, 100], abs=6)  # frame 5
    red, _, blue = pixels[240, 230].astype(int)  # the right edge of the wrong box, at 0.4 · 576
    assert red > blue + 40
    text = " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL).split())
    for words in (
        "m action detection · ",
        "72.2 % mAP at overlap 0.5 72.2 % with all scores of a frame 33.3 % of 3 labelled boxes",
        "1 ✗ down 70 % — label: up 2 ✓ stay 90 % — labels: down, stay a.mp4, second 0.5",
        "1 ✗ (not found) — label: down b.mp4, second 0.2",
        "down 16.7 % 2",
    ):
        assert words in text
    assert not re.search(r'(?:src|href)="(?!data:)', page)  # no network


def test_a_video_that_is_gone_has_no_picture(
    found: BoxScores, truth: BoxManifest, folder: Path
) -> None:
    results = write_detection_results(folder, SETUP, found, truth)
    (folder / "videos" / "b.mp4").unlink()
    page = write_detection_report(folder, results, found, truth).read_text()
    assert page.count("<img") == 1
