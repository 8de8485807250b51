"""Frame mAP: cases worked out by hand, and the outputs of the official code on drawn cases."""

from __future__ import annotations

import random

import numpy as np
import pytest

from hiera_video.data.detection.key_frame import KeyFrame
from hiera_video.eval.detection import (
    ScoredBoxes,
    TrueBoxes,
    average_precision,
    box_accuracy,
    box_confusion,
    box_predictions,
    frame_map,
    intersection_over_union,
    match_boxes,
    number_boxes,
)

Box = tuple[float, float, float, float]
Case = tuple[list[int], list[Box], list[list[float]], list[int], list[Box], list[list[bool]]]

LEFT, RIGHT = (0.0, 0.0, 0.4, 1.0), (0.6, 0.0, 1.0, 1.0)


def scored(*rows: tuple[int, Box, list[float]]) -> ScoredBoxes:
    frames, boxes, scores = zip(*rows)
    return ScoredBoxes(
        frames=np.array(frames), boxes=np.array(boxes, float), scores=np.array(scores, float)
    )


def truth(*rows: tuple[int, Box, list[int]], classes: int = 2) -> TrueBoxes:
    labels = np.zeros((len(rows), classes), bool)
    for row, (_, _, present) in enumerate(rows):
        labels[row, present] = True
    return TrueBoxes(
        frames=np.array([frame for frame, _, _ in rows], int),
        boxes=np.array([box for _, box, _ in rows], float).reshape(-1, 4),
        labels=labels,
    )


def test_right_boxes_and_scores_are_one_hundred_percent() -> None:
    found = frame_map(
        scored((0, LEFT, [0.9, 0.1]), (0, RIGHT, [0.2, 0.8])),
        truth((0, LEFT, [0]), (0, RIGHT, [1])),
        [0, 1],
    )
    assert found == {
        "mAP": 100.0,
        "classes": [
            {"index": 0, "average_precision": 100.0, "boxes": 1},
            {"index": 1, "average_precision": 100.0, "boxes": 1},
        ],
    }


def test_average_precision_by_hand() -> None:
    """Right, wrong, right of 3 boxes: precisions 1, 1/2, 2/3, so 1/3 · 1 + 1/3 · 2/3 = 5/9."""
    found = frame_map(
        scored((0, LEFT, [0.9]), (0, RIGHT, [0.8]), (1, LEFT, [0.7])),
        truth((0, LEFT, [0]), (1, LEFT, [0]), (2, LEFT, [0]), classes=1),
        [0],
    )
    assert found["mAP"] == pytest.approx(100 * 5 / 9, abs=1e-4)
    assert average_precision(np.array([False, True]), 1) == 0.5
    assert average_precision(np.array([False, False, True, True]), 2) == 0.5  # the envelope
    assert average_precision(np.zeros(0, bool), 3) == 0.0
    assert average_precision(np.array([False]), 0) is None


def test_a_detection_may_match_only_the_box_that_it_overlaps_most() -> None:
    """The second detection overlaps the second box by 1/2 too, but the first one more."""
    first, second = (0.0, 0.0, 0.6, 1.0), (0.2, 0.0, 0.8, 1.0)
    near_first = (0.05, 0.0, 0.65, 1.0)
    found = frame_map(
        scored((0, first, [0.9]), (0, near_first, [0.8])),
        truth((0, first, [0]), (0, second, [0]), classes=1),
        [0],
    )
    assert intersection_over_union(np.array([near_first]), np.array([second]))[0] > 0.5
    assert found["mAP"] == 50.0


def test_the_higher_score_of_two_detections_of_one_box_is_right() -> None:
    found = frame_map(
        scored((0, LEFT, [0.3]), (0, LEFT, [0.6]), (1, LEFT, [0.5])),
        truth((0, LEFT, [0]), (1, LEFT, [0]), classes=1),
        [0],
    )
    assert found["mAP"] == 100.0  # right at 0.6 and 0.5; the wrong one comes last


def test_an_overlap_of_one_half_is_enough() -> None:
    half, less = (0.0, 0.0, 0.5, 0.5), (0.0, 0.0, 0.5, 0.4921875)
    true = truth((0, (0.0, 0.0, 0.5, 1.0), [0]), classes=1)
    assert frame_map(scored((0, half, [0.9])), true, [0])["mAP"] == 100.0
    assert frame_map(scored((0, less, [0.9])), true, [0])["mAP"] == 0.0


def test_frames_are_not_mixed_and_frames_without_truth_count_as_wrong() -> None:
    found = frame_map(
        scored((7, LEFT, [0.9]), (3, LEFT, [0.8])), truth((3, LEFT, [0]), classes=1), [0]
    )
    assert found["mAP"] == 50.0


def test_classes_without_boxes_are_left_out_of_the_mean() -> None:
    found = frame_map(
        scored((0, LEFT, [0.9, 0.9, 0.9])), truth((0, LEFT, [0, 2]), classes=3), [0, 1]
    )
    assert found["mAP"] == 100.0  # class 2 does not count
    assert [row["average_precision"] for row in found["classes"]] == [100.0, None]
    empty = truth(classes=1)
    assert frame_map(scored((0, LEFT, [0.9])), empty, [0])["mAP"] is None


def test_a_box_without_area_is_left_out() -> None:
    turned = (0.4, 0.0, 0.0, 1.0)
    found = frame_map(
        scored((0, turned, [0.9]), (0, LEFT, [0.5])), truth((0, LEFT, [0]), classes=1), [0]
    )
    assert found["mAP"] == 100.0


def test_the_highest_scores_of_a_frame_count() -> None:
    detections = scored((0, LEFT, [0.9, 0.2]), (0, RIGHT, [0.8, 0.3]), (1, LEFT, [0.1, 0.2]))
    true = truth((0, RIGHT, [1]), (1, LEFT, [0]))
    of = {
        most: [row["average_precision"] for row in rows["classes"]]
        for most in (None, 2, 3)
        for rows in [frame_map(detections, true, [0, 1], most_per_frame=most)]
    }
    # all: class 0 comes third of three, class 1 first; with two, frame 0 has no score of class 1
    assert of == {
        None: [pytest.approx(100 / 3, abs=1e-4), 100.0],
        2: [pytest.approx(100 / 3, abs=1e-4), 0.0],
        3: [pytest.approx(100 / 3, abs=1e-4), 100.0],
    }


def test_the_first_of_two_equally_overlapped_boxes_is_matched() -> None:
    boxes = np.array([LEFT, RIGHT, (0.2, 0.0, 0.8, 1.0)])
    true = np.array([RIGHT, LEFT, LEFT])
    found = match_boxes(np.array([4, 4, 4]), boxes, np.array([4, 4, 4]), true)
    assert found.tolist() == [1, 0, -1]


def test_predictions_accuracy_and_confusion_of_boxes() -> None:
    detections = scored((0, LEFT, [0.6, 0.9, 0.2]), (0, RIGHT, [0.8, 0.3, 0.1]))
    true = truth((0, LEFT, [1]), (0, RIGHT, [1, 2]), (1, LEFT, [2]), classes=3)
    predicted = box_predictions(detections, true, [0, 1, 2])
    assert predicted.tolist() == [1, 0, -1]
    assert box_predictions(detections, true, [0, 2]).tolist() == [0, 0, -1]
    assert box_accuracy(predicted, true.labels) == pytest.approx(100 / 3, abs=1e-4)
    assert box_confusion(predicted, true.labels).tolist() == [
        [0, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 0, 0, 1],
    ]
    assert box_accuracy(predicted[:0], true.labels[:0]) is None


def key_frame(
    path: str, second: float, boxes: list[Box], labels: tuple[tuple[int, ...], ...] = ()
) -> KeyFrame:
    return KeyFrame(
        path=path,
        label=None,
        row=0,
        second=second,
        video=path,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=labels,
    )


def test_boxes_of_two_lists_are_numbered_by_video_and_second() -> None:
    truth_frames = [
        key_frame("a", 1.0, [LEFT, RIGHT], ((0, 2), ())),
        key_frame("b", 1.0, []),
        key_frame("a", 2.0, [LEFT], ((1,),)),
    ]
    found_frames = [key_frame("a", 2.0, [RIGHT]), key_frame("a", 1.0, [LEFT, LEFT])]
    scores = [np.array([[0.5, 0.1, 0.2]]), np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])]
    found, true = number_boxes(found_frames, scores, truth_frames, 3)
    assert true.frames.tolist() == [0, 0, 2] and found.frames.tolist() == [2, 0, 0]
    assert true.labels.tolist() == [[True, False, True], [False] * 3, [False, True, False]]
    assert found.scores[:, 0].tolist() == [0.5, 0.1, 0.4]
    assert found.boxes[0] == pytest.approx(RIGHT)
    nothing, empty = number_boxes([], [], [], 3)
    assert nothing.scores.shape == (0, 3) and empty.labels.shape == (0, 3)
    assert frame_map(nothing, true, [0, 1, 2])["mAP"] == 0.0


def draw_case(seed: int) -> tuple[Case, list[int]]:
    """Draw boxes of six key frames, jittered detections with scores, and the classes to count."""
    generator = random.Random(seed)

    def draw_box() -> Box:
        left, top = 0.6 * generator.random(), 0.6 * generator.random()
        width, height = 0.1 + 0.3 * generator.random(), 0.1 + 0.3 * generator.random()
        return (left, top, left + width, top + height)

    frames, boxes, scores = list[int](), list[Box](), list[list[float]]()
    true_frames, true_boxes, labels = list[int](), list[Box](), list[list[bool]]()
    for frame in range(6):
        for _ in range(generator.randrange(5)):
            box, present = draw_box(), [generator.random() < 0.3 for _ in range(6)]
            present[4] = False  # a class without ground truth
            true_frames.append(frame)
            true_boxes.append(box)
            labels.append(present)
            for _ in range(generator.randrange(4)):
                sides = [side + 0.12 * (generator.random() - 0.5) for side in box]
                frames.append(frame)
                boxes.append((sides[0], sides[1], sides[2], sides[3]))
                scores.append([0.3 * yes + generator.random() for yes in present])
        for _ in range(generator.randrange(3)):
            frames.append(frame)
            boxes.append(draw_box())
            scores.append([generator.random() for _ in range(6)])
    return (frames, boxes, scores, true_frames, true_boxes, labels), [0, 1, 2, 4, 5]


OFFICIAL: list[tuple[int, int | None, float, list[float | None]]] = [
    (0, None, 65.8544, [54.6875, 66.6667, 100.0, None, 42.0635]),
    (0, 5, 63.0952, [50.0, 66.6667, 100.0, None, 35.7143]),
    (1, None, 35.3766, [10.2564, 100.0, 31.25, None, 0.0]),
    (1, 5, 31.25, [0.0, 100.0, 25.0, None, 0.0]),
    (2, None, 32.7316, [27.2727, 62.5, 25.7692, None, 15.3846]),
    (2, 5, 17.5, [0.0, 50.0, 20.0, None, 0.0]),
    (3, None, 58.0093, [91.6667, 37.037, 46.6667, None, 56.6667]),
    (3, 5, 52.5, [95.0, 33.3333, 40.0, None, 41.6667]),
    (4, None, 27.677, [35.7143, 7.1429, 15.7143, None, 52.1368]),
    (4, 5, 23.6111, [35.7143, 0.0, 14.2857, None, 44.4444]),
    (5, None, 30.6073, [4.5455, 44.0741, 7.1429, None, 66.6667]),
    (5, 5, 25.8333, [0.0, 36.6667, 0.0, None, 66.6667]),
]
"""Seed, most scores of a frame, mAP and average precisions in percent, by ActivityNet's
`object_detection_evaluation` (as PySlowFast distributes it), detections sorted as
`get_ava_performance.py` does."""


@pytest.mark.parametrize("row", OFFICIAL, ids=lambda row: f"{row[0]}-{row[1]}")
def test_the_official_outputs(row: tuple[int, int | None, float, list[float | None]]) -> None:
    seed, most, expected, by_class = row
    (frames, boxes, scores, true_frames, true_boxes, labels), classes = draw_case(seed)
    found = frame_map(
        ScoredBoxes(frames=np.array(frames), boxes=np.array(boxes), scores=np.array(scores)),
        TrueBoxes(
            frames=np.array(true_frames), boxes=np.array(true_boxes), labels=np.array(labels)
        ),
        classes,
        most_per_frame=most,
    )
    assert found["mAP"] == pytest.approx(expected, abs=2e-4)
    found_by_class = [each["average_precision"] for each in found["classes"]]
    assert found_by_class == pytest.approx(by_class, abs=2e-4)
