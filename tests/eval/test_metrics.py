"""Metrics, as literal numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hiera_video.eval.metrics import (
    accuracy,
    bootstrap,
    confusion,
    cross_entropy,
    mean_average_precision,
)

PROBABILITIES = np.array(  # six classes; the label's rank is 1, 2, 1, 6
    [
        [0.5, 0.3, 0.1, 0.05, 0.03, 0.02],
        [0.5, 0.3, 0.1, 0.05, 0.03, 0.02],
        [0.1, 0.6, 0.1, 0.1, 0.05, 0.05],
        [0.5, 0.3, 0.1, 0.05, 0.03, 0.02],
    ]
)
LABELS = np.array([0, 1, 1, 5])


def test_accuracy() -> None:
    found = accuracy(PROBABILITIES, LABELS)
    assert found["top1"] == pytest.approx(50)
    assert found["top5"] == pytest.approx(75)
    assert found["mean_class"] == pytest.approx((100 + 50 + 0) / 3)  # over the classes that occur


def test_mean_class_leaves_out_classes_without_videos() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0]] * 3 + [[0.1, 0.9, 0.0]])
    found = accuracy(probabilities, np.zeros(4, np.int64))
    assert found["top1"] == found["mean_class"] == pytest.approx(75)


def test_fewer_than_five_classes() -> None:
    assert accuracy(np.array([[0.9, 0.1]]), np.array([1]))["top5"] == pytest.approx(100)


def test_cross_entropy() -> None:
    logs = [math.log(p) for p in (0.5, 0.3, 0.6, 0.02)]
    assert cross_entropy(PROBABILITIES, LABELS) == pytest.approx(-sum(logs) / 4)
    assert math.isfinite(cross_entropy(np.array([[1.0, 0.0]]), np.array([1])))
    hot = np.array([[1, 0], [1, 1]], np.float32)
    expected = -(math.log(0.9) + math.log(0.8) + math.log(0.3) + math.log(0.6)) / 4
    assert cross_entropy(np.array([[0.9, 0.2], [0.3, 0.6]]), hot) == pytest.approx(expected)


def test_confusion_has_a_row_for_each_label() -> None:
    counts = confusion(PROBABILITIES, LABELS)
    assert counts[1].tolist() == [1, 1, 0, 0, 0, 0] and counts[5, 0] == 1 and counts.sum() == 4


def test_mean_average_precision_skips_classes_that_never_occur() -> None:
    labels = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    scores = np.array([[0.9, 0.8, 0.5], [0.1, 0.2, 0.5]])
    # class 0 is ranked perfectly (1.0), class 1's only video comes second (0.5)
    assert mean_average_precision(scores, labels)["mAP"] == pytest.approx(75)


def test_mean_average_precision_without_any_positive() -> None:
    """I 3.3: videos that show no class; a resample of them alone ended the test."""
    labels = np.zeros((3, 2), np.float32)
    assert mean_average_precision(np.full((3, 2), 0.5), labels) == {"mAP": 0.0}
    labels[0, 1] = 1
    assert mean_average_precision(np.eye(3)[:, [1, 0]], labels) == {"mAP": 100.0}
    assert bootstrap(lambda sample: math.nan if 0 in sample else 1.0, 3) == (1, 1)
