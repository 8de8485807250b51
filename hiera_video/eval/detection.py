"""Frame mAP of action detection, as the evaluation code of AVA computes it, and box accuracy.

A detected box has a score for every class, and a ground-truth box any number of classes. In each
class, a detection may match only the ground-truth box of its key frame that it overlaps most, if
their intersection over union is 0.5 or more, and of several detections of one box the first by
score matches. Average precision is the area under the precision envelope at all recalls, and mAP
is its mean over the classes that have ground truth. The released script (ActivityNet,
`get_ava_performance.py`) counts the 50 highest scores of a key frame; PySlowFast counts all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiera_video.data.detection.key_frame import KeyFrame

MIN_OVERLAP = 0.5
"""Intersection over union from which on a detection may match a box."""
MOST_PER_FRAME = 50
"""Scores of a key frame, over all boxes and classes, that AVA's script counts."""


@dataclass(frozen=True, kw_only=True)
class ScoredBoxes:
    """N detected boxes with their scores."""

    frames: NDArray[np.int64]
    """[N] number of the key frame that a box is in."""
    boxes: NDArray[np.float64]
    """[N, 4] left, top, right, bottom."""
    scores: NDArray[np.float64]
    """[N, K] score of each class."""

    def __post_init__(self) -> None:
        _check(self.frames, self.boxes, self.scores)


@dataclass(frozen=True, kw_only=True)
class TrueBoxes:
    """M ground-truth boxes with their classes."""

    frames: NDArray[np.int64]
    """[M] number of the key frame that a box is in."""
    boxes: NDArray[np.float64]
    """[M, 4] left, top, right, bottom."""
    labels: NDArray[np.bool_]
    """[M, K] True for the classes of a box."""

    def __post_init__(self) -> None:
        _check(self.frames, self.boxes, self.labels)


def number_boxes(
    found: Sequence[KeyFrame],
    scores: Sequence[NDArray[np.floating[Any]]],
    truth: Sequence[KeyFrame],
    num_classes: int,
) -> tuple[ScoredBoxes, TrueBoxes]:
    """Return the boxes of two lists, numbered by their key frames.

    A key frame is a video and a second, so the lists may differ in order and in key frames.

    Args:
        found: Key frames with the boxes that were scored.
        scores: [N, K] scores of the boxes of each of `found`.
        truth: Key frames with labelled boxes.
        num_classes: K.
    """
    numbers: dict[tuple[str, float], int] = {}

    def gather(frames: Sequence[KeyFrame]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        keys = [numbers.setdefault((each.path, each.second), len(numbers)) for each in frames]
        counts = [len(each.boxes) for each in frames]
        boxes = [np.zeros((0, 4)), *(each.boxes.astype(np.float64) for each in frames)]
        return np.repeat(np.array(keys, np.int64), counts), np.concatenate(boxes)

    true_numbers, true_boxes = gather(truth)
    labels = np.zeros((len(true_boxes), num_classes), np.bool_)
    every = (present for each in truth for present in each.labels)
    for row, present in enumerate(every):
        labels[row, list(present)] = True
    found_numbers, found_boxes = gather(found)
    columns = [np.zeros((0, num_classes)), *(each.astype(np.float64) for each in scores)]
    return (
        ScoredBoxes(frames=found_numbers, boxes=found_boxes, scores=np.concatenate(columns)),
        TrueBoxes(frames=true_numbers, boxes=true_boxes, labels=labels),
    )


def _check(
    frames: NDArray[np.int64], boxes: NDArray[np.float64], columns: NDArray[np.generic]
) -> None:
    assert boxes.shape == (len(frames), 4), (frames.shape, boxes.shape)
    assert columns.ndim == 2 and len(columns) == len(frames), (frames.shape, columns.shape)


def frame_map(
    detections: ScoredBoxes,
    ground_truth: TrueBoxes,
    classes: Sequence[int],
    *,
    most_per_frame: int | None = MOST_PER_FRAME,
) -> dict[str, Any]:
    """Return the mean average precision over key frames, and that of each class, in percent.

    Args:
        detections: Boxes without area are left out.
        ground_truth: Of the same key frames; frames that are not to count are in neither.
        classes: Classes that count: 60 of AVA's 80.
        most_per_frame: Number of the highest scores of a key frame that count; None: all.

    Returns:
        `mAP`, None if no class has ground truth; and `classes`, for each of `classes` a dict with
        `index`, `average_precision` (None without ground truth), and the number of `boxes` in the
        ground truth.
    """
    sized = (detections.boxes[:, :2] < detections.boxes[:, 2:]).all(axis=1)
    frames, boxes = detections.frames[sized], detections.boxes[sized].astype(np.float64)
    scores = detections.scores[sized][:, list(classes)].astype(np.float64)
    counted = _highest(frames, scores, most_per_frame)
    rows = []
    for column, index in enumerate(classes):
        chosen, true = counted[:, column], ground_truth.labels[:, index]
        order = np.argsort(-scores[chosen, column], kind="stable")
        found = match_boxes(
            frames[chosen][order],
            boxes[chosen][order],
            ground_truth.frames[true],
            ground_truth.boxes[true].astype(np.float64),
        )
        precision = average_precision(_first_of_each(found), int(true.sum()))
        rows.append(
            {
                "index": int(index),
                "average_precision": None if precision is None else round(100 * precision, 4),
                "boxes": int(true.sum()),
            }
        )
    present = [row["average_precision"] for row in rows if row["average_precision"] is not None]
    mean = round(float(np.mean(present)), 4) if present else None
    return {"mAP": mean, "classes": rows}


def match_boxes(
    frames: NDArray[np.int64],
    boxes: NDArray[np.float64],
    true_frames: NDArray[np.int64],
    true_boxes: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Return for each box the box of the ground truth that it overlaps most, or -1.

    Args:
        frames: [N] key frame of each box.
        boxes: [N, 4].
        true_frames: [M] key frame of each box of the ground truth.
        true_boxes: [M, 4].

    Returns:
        [N] indices of the ground truth, the lower of two that are overlapped equally; -1 for a box
        that overlaps none by `MIN_OVERLAP` or more.
    """
    order = np.argsort(true_frames, kind="stable")
    first = np.searchsorted(true_frames[order], frames, side="left")
    count = np.searchsorted(true_frames[order], frames, side="right") - first
    # every pair of a box and a true box of its frame: pair `i` of a box is true box `first + i`
    box = np.repeat(np.arange(len(frames)), count)
    within = np.arange(len(box)) - np.repeat(np.cumsum(count) - count, count)
    true = order[first[box] + within]
    overlap = intersection_over_union(boxes[box], true_boxes[true])
    by_box = np.lexsort((true, -overlap, box))
    box, true, overlap = box[by_box], true[by_box], overlap[by_box]
    best = np.flatnonzero(np.diff(box, prepend=-1))
    found = np.full(len(frames), -1)
    found[box[best]] = np.where(overlap[best] >= MIN_OVERLAP, true[best], -1)
    return found


def intersection_over_union(
    boxes: NDArray[np.float64], others: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the overlap of each pair of boxes.

    Args:
        boxes: [N, 4] left, top, right, bottom.
        others: [N, 4].

    Returns:
        [N] in [0, 1]; 0 for two boxes without area.
    """
    sides = np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])
    shared = np.maximum(sides, 0).prod(axis=1)
    areas = [(each[:, 2:] - each[:, :2]).prod(axis=1) for each in (boxes, others)]
    union = areas[0] + areas[1] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def average_precision(correct: NDArray[np.bool_], positives: int) -> float | None:
    """Return the area under the precision envelope at all recalls, or None without positives.

    Args:
        correct: True for each detection that is right, by falling score.
        positives: Boxes of the class in the ground truth.

    >>> import numpy as np
    >>> average_precision(np.array([True, False, True]), 4)  # 1/4 · 1 + 1/4 · 2/3
    0.41666666666666663
    """
    if positives == 0:
        return None
    precision = np.cumsum(correct) / np.arange(1, len(correct) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[correct].sum() / positives)


def box_predictions(
    detections: ScoredBoxes, ground_truth: TrueBoxes, classes: Sequence[int]
) -> NDArray[np.int64]:
    """Return the predicted class of each box of the ground truth.

    It is the class of the highest score among `classes`, of the detected box that overlaps the
    true box most, or -1 if none overlaps it by `MIN_OVERLAP` or more.

    Args:
        detections: Scored boxes.
        ground_truth: M boxes.
        classes: Classes that count.

    Returns:
        [M].
    """
    found = match_boxes(
        ground_truth.frames,
        ground_truth.boxes.astype(np.float64),
        detections.frames,
        detections.boxes.astype(np.float64),
    )
    columns = np.asarray(classes)
    if not len(detections.frames) or not len(columns):
        return found
    top = columns[detections.scores[:, columns].argmax(axis=1)]
    return np.where(found >= 0, top[found], -1)


def box_accuracy(predicted: NDArray[np.int64], labels: NDArray[np.bool_]) -> float | None:
    """Return the percentage of boxes whose predicted class is one of theirs; None without boxes.

    Args:
        predicted: [M] as `box_predictions` returns them; -1, a box that was not found, is wrong.
        labels: [M, K].
    """
    if not len(predicted):
        return None
    correct = labels[np.arange(len(predicted)), predicted] & (predicted >= 0)
    return round(100 * float(correct.mean()), 4)


def box_confusion(predicted: NDArray[np.int64], labels: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return boxes by class (row) and predicted class (column), [K, K + 1].

    A box counts once in the row of its predicted class if that is right, otherwise in the rows of
    all its classes. The last column counts the boxes that were not found.

    Args:
        predicted: [M] as `box_predictions` returns them.
        labels: [M, K].
    """
    count = labels.shape[1]
    counts = np.zeros((count, count + 1), np.int64)
    boxes = np.arange(len(predicted))
    correct = labels[boxes, predicted] & (predicted >= 0)
    np.add.at(counts, (predicted[correct], predicted[correct]), 1)
    wrong, rows = np.nonzero(labels & ~correct[:, None])
    np.add.at(counts, (rows, predicted[wrong]), 1)  # -1 is the last column
    return counts


def _highest(
    frames: NDArray[np.int64], scores: NDArray[np.float64], most: int | None
) -> NDArray[np.bool_]:
    """Return [N, K], True for the `most` highest scores of each frame; ties count in list order."""
    if most is None:
        return np.ones(scores.shape, np.bool_)
    frame, flat = np.repeat(frames, scores.shape[1]), scores.ravel()
    order = np.lexsort((-flat, frame))
    starts = np.diff(frame[order], prepend=frame[order[:1]] - 1) != 0
    place = np.arange(len(flat))
    rank = place - np.maximum.accumulate(np.where(starts, place, 0))
    counted = np.zeros(len(flat), np.bool_)
    counted[order[rank < most]] = True
    return counted.reshape(scores.shape)


def _first_of_each(found: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return True where a true box is found for the first time."""
    first = np.zeros(len(found), np.bool_)
    values, places = np.unique(found, return_index=True)
    first[places[values >= 0]] = True
    return first
