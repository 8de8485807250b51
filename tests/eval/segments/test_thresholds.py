"""Choice of thresholds on labelled curves."""

from __future__ import annotations

import numpy as np
import pytest

from hiera_video.eval.segments.average_precision import LabelledSegment
from hiera_video.eval.segments.find import ScoreCurve
from hiera_video.eval.segments.thresholds import choose_thresholds


def curve(*columns: list[float]) -> ScoreCurve:
    """Windows of 1 s, one a second, with the scores of each class."""
    scores = np.array(columns, np.float32).T
    return ScoreCurve(
        centres=np.arange(len(scores)) + 0.5,
        scores=scores,
        start_seconds=0,
        end_seconds=float(len(scores)),
    )


def test_the_middle_of_the_best_thresholds() -> None:
    # class 0: wrong below 0.33, right to 0.60, nothing above
    curves = {"a": curve([0.6, 0.6, 0.3, 0.3, 0.3, 0.3], [0.0] * 6)}
    truth = {"a": [LabelledSegment(label=0, start_seconds=0, end_seconds=2)]}
    choice = choose_thresholds(curves, truth, min_seconds=0)
    assert choice.thresholds == {0: 0.45}  # of 0.35 to 0.60
    assert choice.f1 == {0: 1.0} and choice.mean_f1 == 1 and choice.keep == 1


def test_hysteresis_is_chosen_where_it_helps() -> None:
    # a true segment rises to 0.8 and lasts while 0.4; a wrong one stays at 0.45
    curves = {"a": curve([0.4, 0.8, 0.4, 0.1, 0.45, 0.45, 0.45, 0.1])}
    truth = {"a": [LabelledSegment(label=0, start_seconds=0, end_seconds=3)]}
    choice = choose_thresholds(curves, truth, min_seconds=0)
    assert choice.keep == 0.8 and choice.thresholds == {0: 0.5} and choice.mean_f1 == 1


def test_each_class_has_a_threshold_of_its_own() -> None:
    curves = {
        "a": curve([0.9, 0.2, 0.2, 0.2], [0.1, 0.1, 0.35, 0.35]),
        "b": curve([0.5, 0.5, 0.5, 0.5], [0.3, 0.3, 0.0, 0.0]),
    }
    truth = {
        "a": [
            LabelledSegment(label=0, start_seconds=0, end_seconds=1),
            LabelledSegment(label=1, start_seconds=2, end_seconds=4),
        ],
        "b": [LabelledSegment(label=1, start_seconds=0, end_seconds=2)],
    }
    choice = choose_thresholds(curves, truth, min_seconds=0)
    assert choice.thresholds == {0: 0.7, 1: 0.2}  # of 0.55 to 0.90, and of 0.15 to 0.30
    assert choice.f1 == pytest.approx({0: 1, 1: 1})
    assert choose_thresholds(curves, truth, min_seconds=0, skip={0}).thresholds == {1: 0.2}


def test_what_cannot_be_found_has_the_lowest_f1() -> None:
    truth = {"a": [LabelledSegment(label=0, start_seconds=0, end_seconds=1)]}
    choice = choose_thresholds({"a": curve([0.0, 0.0])}, truth, min_seconds=0)
    assert choice.f1 == {0: 0.0} and choice.thresholds == {0: 0.5}
