"""Calibration, bootstrap intervals, and results by views and classes, as literal numbers."""

from __future__ import annotations

import numpy as np
import pytest

from hiera_video.eval.breakdown import (
    average_precisions,
    by_class,
    by_views,
    confusion_pairs,
    view_subsets,
)
from hiera_video.eval.calibration import calibration, calibration_error, fit_temperature, scale
from hiera_video.eval.metrics import bootstrap, intervals, wilson
from hiera_video.eval.views import Predictions


def test_calibration_of_an_overconfident_model() -> None:
    probabilities = np.array([[0.9, 0.1]] * 10)
    labels = np.array([0] * 6 + [1] * 4)  # 60 % are correct
    assert calibration_error(probabilities, labels) == pytest.approx(30, abs=1e-3)
    found = calibration(probabilities, labels)
    assert found["curve"] == [{"confidence": pytest.approx(0.9), "accuracy": 0.6, "videos": 10}]
    # softmax(log p / T) = 0.6 where log(9) / T = log(0.6 / 0.4)
    assert found["temperature"] == pytest.approx(np.log(9) / np.log(1.5), rel=2e-3)
    assert found["error_scaled"] < 2 and found["error"] == pytest.approx(30, abs=1e-3)


def test_temperature_scaling() -> None:
    scaled = scale(np.array([[0.7, 0.2, 0.1]]), 2.0)
    roots = np.sqrt([0.7, 0.2, 0.1])
    assert scaled[0] == pytest.approx(roots / roots.sum())
    # without a mistake, the temperature is as low as the search allows
    assert fit_temperature(np.array([[0.6, 0.4]]), np.array([0])) < 0.06


def test_intervals_match_the_binomial_and_are_reproducible() -> None:
    probabilities = np.zeros((400, 6))
    probabilities[:, 0] = 1
    labels = np.array([0] * 300 + [1] * 100)
    found = intervals(probabilities, labels)
    deviation = 100 * np.sqrt(0.75 * 0.25 / 400)
    assert found["top1"] == pytest.approx((75 - 1.96 * deviation, 75 + 1.96 * deviation), abs=0.4)
    assert found["top5"] == (99.0488, 100)
    # 300 of 300 and 0 of 100: Wilson (98.74, 100) and (0, 3.70)
    assert found["mean_class"] == (49.3679, 51.8497)
    assert found == intervals(probabilities, labels)
    assert bootstrap(lambda sample: 1.0, 3, 10) == (1, 1)


def test_all_videos_right_is_no_empty_interval() -> None:
    """I 3.3: 12 of 12 was "100 to 100"."""
    probabilities, labels = np.eye(3)[[0, 1, 2] * 4], np.array([0, 1, 2] * 4)
    assert intervals(probabilities, labels) == {
        "top1": (75.7506, 100),
        "top5": (75.7506, 100),
        "mean_class": (71.7161, 100),
    }
    none = intervals(1 - probabilities, labels)
    assert none["top1"] == (0, 24.2494)
    assert wilson(0, 5) == (0.0, pytest.approx(0.434482, abs=1e-6))
    assert wilson(4, 5) == (pytest.approx(0.375535, abs=1e-6), pytest.approx(0.963776, abs=1e-6))


def test_view_subsets() -> None:
    assert view_subsets(2, 3) == [
        (1, 1, [1]),
        (1, 3, [0, 1, 2]),
        (2, 1, [1, 4]),
        (2, 3, [0, 1, 2, 3, 4, 5]),
    ]
    assert [views for _, _, views in view_subsets(5, 1)] == [
        [2],
        [0, 4],
        [0, 2, 4],
        [0, 1, 2, 4],
        [0, 1, 2, 3, 4],
    ]


def test_accuracy_by_views() -> None:
    # two clips of one crop: the first predicts class 0, the second the label, with more confidence
    logits = np.array([[[1.0, 0.0], [0.0, 5.0]], [[1.0, 0.0], [5.0, 0.0]]], np.float32)
    rows = by_views(Predictions(np.array([0, 1]), logits, ()), np.array([1, 0]), 2, 1)
    assert [(row["clips"], row["views"], row["top1"]) for row in rows] == [(1, 1, 50), (2, 2, 100)]


def test_classes_and_confusion_pairs() -> None:
    counts = np.array([[3, 1, 0, 0], [2, 2, 0, 0], [0, 0, 0, 0], [0, 5, 0, 0]])
    rows = by_class(counts, ["a", "b", "c", "d"])
    assert [(row["name"], row["videos"], row["recall"], row["precision"]) for row in rows] == [
        ("a", 4, 75, 60),
        ("b", 4, 50, 25),
        ("d", 5, 0, None),
    ]
    pairs = confusion_pairs(counts, ["a", "b", "c", "d"], limit=2)
    assert pairs == [
        {"label": "d", "answer": "b", "count": 5, "share": 100},
        {"label": "b", "answer": "a", "count": 2, "share": 50},
    ]


def test_average_precision_of_each_class_that_occurs() -> None:
    probabilities = np.array([[0.9, 0.8, 0.5], [0.1, 0.2, 0.5]])
    labels = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    rows = average_precisions(probabilities, labels, ["a", "b", "c"])
    assert [(row["name"], row["average_precision"]) for row in rows] == [("a", 100), ("b", 50)]
