"""Result files of a test of action detection: `results.json` and `predictions.csv`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiera_video.data.dataset import UnreadableVideo
from hiera_video.data.detection.key_frame import BoxManifest, KeyFrame
from hiera_video.eval.breakdown import confusion_pairs
from hiera_video.eval.class_names import output_names
from hiera_video.eval.detection import (
    box_accuracy,
    box_confusion,
    box_predictions,
    frame_map,
    number_boxes,
)
from hiera_video.utils.atomic_files import atomic_file, write_atomic
from hiera_video.utils.text_files import csv_field, encode_text

NOT_FOUND = "(not found)"
"""Prediction of a labelled box that no scored box overlaps enough."""


@dataclass(frozen=True, kw_only=True)
class DetectionSetup:
    """The model that was tested, and how; recorded in `results.json`."""

    model: str
    checkpoint: str
    crops: int
    """Crops of a key frame's clip."""
    precision: str
    """As in `test.precision`."""
    chosen_here: bool = False
    """The checkpoint was selected by its mAP on the test list, so its result is optimistic."""


@dataclass(frozen=True, kw_only=True)
class BoxScores:
    """Scores of the boxes of N key frames."""

    frames: tuple[KeyFrame, ...]
    """The key frames that could be read, with the boxes that were scored."""
    scores: tuple[NDArray[np.float32], ...]
    """[boxes, K] of each key frame, between 0 and 1."""
    unreadable: tuple[UnreadableVideo, ...] = ()
    """The other key frames."""
    boxes_outside: int = 0
    """Boxes that lie outside the crops of a test, so that their scores say nothing about them."""


def detection_metrics(
    found: BoxScores, truth: BoxManifest, counted: Sequence[int] | None = None
) -> dict[str, Any]:
    """Return mAP and accuracy of the scored boxes, in percent; None where there is no box.

    Args:
        found: Scores of the K classes of `truth`.
        truth: Labelled boxes. Those of key frames that could not be read count as missed.
        counted: Classes that count; None: all.

    Returns:
        `mAP`, of the 50 highest scores of each key frame, as AVA's script computes it;
        `mAP_all_scores`, of all, as PySlowFast computes it; `box_accuracy`, the labelled boxes for
        which the highest score is that of one of their classes; `box_recall`, those that a scored
        box overlaps; the numbers of `key_frames`, `boxes` and `scored_boxes`; `classes`; and
        `confusion_pairs`.
    """
    names = output_names(truth.class_names, truth.num_classes)
    classes = list(range(len(names)) if counted is None else counted)
    detections, boxes = number_boxes(found.frames, found.scores, truth.records, len(names))
    limited = frame_map(detections, boxes, classes)
    complete = frame_map(detections, boxes, classes, most_per_frame=None)
    # a box may have only classes that do not count
    labelled = boxes.labels[:, classes].any(axis=1)
    predicted = box_predictions(detections, boxes, classes)[labelled]
    labels = boxes.labels[labelled]
    recall = round(100 * float((predicted >= 0).mean()), 4) if len(predicted) else None
    counts = np.pad(box_confusion(predicted, labels), ((0, 1), (0, 0)))
    return {
        "mAP": limited["mAP"],
        "mAP_all_scores": complete["mAP"],
        "box_accuracy": box_accuracy(predicted, labels),
        "box_recall": recall,
        "key_frames": len(truth.records),
        "boxes": len(predicted),
        "scored_boxes": len(detections.frames),
        "classes": [{"name": names[row["index"]], **row} for row in limited["classes"]],
        "confusion_pairs": confusion_pairs(counts, [*names, NOT_FOUND]),
    }


def write_detection_results(
    folder: Path,
    setup: DetectionSetup,
    found: BoxScores,
    truth: BoxManifest,
    counted: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Write `results.json` and `predictions.csv`; equal scores give equal bytes.

    `predictions.csv` is in the form that AVA's evaluation reads:
    `video,second,x1,y1,x2,y2,action,score`, a line for each box and class.

    Args:
        folder: The run's folder; created if necessary.
        setup: What was tested.
        found: The model's scores.
        truth: Labelled boxes.
        counted: Classes that count; None: all.

    Returns:
        The content of `results.json`.
    """
    results = {
        **detection_metrics(found, truth, counted),
        **asdict(setup),
        "manifest": truth.source,
        "evaluated": len(found.frames),
        "boxes_outside": found.boxes_outside,
        "broken": [
            {"row": video.row, "path": video.path, "reason": video.reason}
            for video in found.unreadable
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    classes = range(truth.num_classes) if counted is None else counted
    ids = {index: truth.class_ids[index] for index in classes}
    with atomic_file(folder / "predictions.csv") as file:  # of AVA it has 12 million lines
        for lines in ava_lines(found.frames, found.scores, ids):
            file.write(encode_text(lines))
    write_atomic(folder / "results.json", json.dumps(results, indent=1, ensure_ascii=False))
    return results


def ava_lines(
    frames: Sequence[KeyFrame], scores: Sequence[NDArray[np.float32]], ids: dict[int, int]
) -> Iterator[str]:
    """Yield the lines of each key frame as AVA's evaluation reads them, rounded as PySlowFast's.

    Args:
        frames: Key frames with boxes.
        scores: [boxes, K] of each.
        ids: Index of each class that is written → its id in lists.
    """
    for frame, rows in zip(frames, scores):
        lines = []
        start = f"{csv_field(frame.video)},{second_text(frame.second)}"
        for box, row in zip(frame.boxes.tolist(), rows.tolist()):
            edges = ",".join(f"{edge:.3f}" for edge in box)
            lines += [f"{start},{edges},{ids[index]},{row[index]:.4f}\n" for index in ids]
        yield "".join(lines)


def second_text(second: float) -> str:
    """Return a second as lists write it: whole ones with four digits.

    >>> second_text(902.0), second_text(0.8)
    ('0902', '0.8')
    """
    return f"{int(second):04d}" if second == int(second) else repr(second)
