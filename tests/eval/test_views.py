"""Averaging over views, as literal numbers."""

from __future__ import annotations

import numpy as np
import pytest

from hiera_video.eval.views import Predictions


def test_softmax_per_view_then_mean_over_views() -> None:
    # averaging logits instead would give other numbers
    probabilities = np.array([[[0.9, 0.1], [0.4, 0.6]]])
    predictions = Predictions(np.array([7]), np.log(probabilities).astype(np.float32) + 3, ())
    assert predictions.probabilities() == pytest.approx(np.array([[0.65, 0.35]]), abs=1e-6)


def test_sigmoid_per_view_for_several_labels() -> None:
    predictions = Predictions(
        np.array([0]), np.array([[[0.0, 100.0], [0.0, -100.0]]], np.float32), ()
    )
    assert predictions.probabilities(multi_label=True) == pytest.approx(np.array([[0.5, 0.5]]))


def test_huge_logits_do_not_overflow() -> None:
    predictions = Predictions(np.array([0]), np.array([[[1e4, -1e4]]], np.float32), ())
    assert predictions.probabilities().tolist() == [[1.0, 0.0]]


def test_a_video_cannot_be_counted_twice() -> None:
    with pytest.raises(AssertionError, match="counted twice"):
        Predictions(np.array([3, 3]), np.zeros((2, 1, 2), np.float32), ())
