"""Segments from score curves; all expected values were computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hiera_video.errors import ConfigError
from hiera_video.eval.segments.find import (
    FoundSegment,
    ScoreCurve,
    SegmentRule,
    find_segments,
    hysteresis,
    overlap,
    suppress,
)


def curve(scores: list[list[float]], *, start: float = 0, step: float = 1) -> ScoreCurve:
    """Windows of 2 s, every `step` seconds."""
    array = np.array(scores, np.float32)
    centres = start + 1 + step * np.arange(len(array))
    return ScoreCurve(
        centres=centres,
        scores=array,
        start_seconds=start,
        end_seconds=float(centres[-1]) + 1,
    )


def rule(**options: Any) -> SegmentRule:
    defaults = {"thresholds": (0.5,), "keep": 1.0, "min_seconds": 0.0, "max_overlap": 0.5}
    return SegmentRule(**{**defaults, **options})


def segment(label: int, start: float, end: float, score: float) -> FoundSegment:
    return FoundSegment(label=label, start_seconds=start, end_seconds=end, score=score)


def test_each_window_stands_for_the_time_nearest_to_its_middle() -> None:
    assert curve([[0.1], [0.2], [0.3]]).edges().tolist() == [0, 1.5, 2.5, 4]
    assert curve([[0.1]], start=10).edges().tolist() == [10, 12]
    uneven = ScoreCurve(  # the last window ends with the video
        centres=np.array([1, 3, 3.5]),
        scores=np.zeros((3, 1), np.float32),
        start_seconds=0,
        end_seconds=4.5,
    )
    assert uneven.edges().tolist() == [0, 2, 3.25, 4.5]


def test_smoothing_averages_over_seconds() -> None:
    rough = curve([[0.0, 1], [0.3, 1], [0.9, 1], [0.0, 1]])
    expected = np.array([[0.15, 1], [0.4, 1], [0.4, 1], [0.45, 1]])
    assert np.allclose(rough.smoothed(2).scores, expected)  # 1 s to each side
    assert np.array_equal(rough.smoothed(0).scores, rough.scores)
    assert np.allclose(rough.smoothed(100).scores, [[0.3, 1]] * 4)


def test_hysteresis() -> None:
    scores = np.array([0.6, 0.4, 0.1, 0.5, 0.4, 0.4, 0.9], np.float32)
    assert hysteresis(scores, high=0.6, low=0.4) == [(0, 2), (3, 7)]
    assert hysteresis(scores, high=0.7, low=0.4) == [(3, 7)]
    assert hysteresis(scores, high=0.5, low=0.5) == [(0, 1), (3, 4), (6, 7)]
    assert hysteresis(scores, high=1, low=0.5) == []
    assert hysteresis(scores[:0], high=0.5, low=0.5) == []


def test_segments_of_a_curve() -> None:
    scores = [[0.1, 0.0], [0.8, 0.2], [0.4, 0.3], [0.1, 0.9], [0.0, 0.7]]
    found = find_segments(curve(scores), rule(thresholds=(0.8, 0.7), keep=0.5))
    # class 0: windows 1 and 2, each 1 s; class 1: windows 3 and 4, of 1 s and 1.5 s
    assert [(one.label, one.start_seconds, one.end_seconds) for one in found] == [
        (0, 1.5, 3.5),
        (1, 3.5, 6),
    ]
    assert [one.score for one in found] == pytest.approx([0.6, (0.9 + 1.5 * 0.7) / 2.5])
    assert find_segments(curve(scores), rule(thresholds=(0.8, 0.7)), skip={1}) == [
        segment(0, 1.5, 2.5, pytest.approx(0.8))
    ]


def test_short_segments_are_dropped() -> None:
    scores = curve([[0.0], [0.9], [0.0], [0.9], [0.9], [0.0]])
    assert len(find_segments(scores, rule(min_seconds=1))) == 2  # exactly as long
    (found,) = find_segments(scores, rule(min_seconds=1.1))
    assert (found.start_seconds, found.end_seconds) == (3.5, 5.5)


def test_a_whole_video_and_nothing() -> None:
    (found,) = find_segments(curve([[0.6], [0.7], [0.8]]), rule())
    assert (found.start_seconds, found.end_seconds) == (0, 4)
    assert find_segments(curve([[0.1], [0.2]]), rule()) == []


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((0, 2), (1, 3), 1 / 3),
        ((0, 4), (1, 2), 1 / 4),
        ((0, 1), (1, 2), 0),
        ((0, 1), (2, 3), 0),
        ((0.5, 1), (0.5, 1), 1),
    ],
)
def test_overlap(one: tuple[float, float], other: tuple[float, float], expected: float) -> None:
    ones, others = segment(0, *one, 0), segment(0, *other, 0)
    assert overlap(ones, others) == overlap(others, ones) == pytest.approx(expected)


def test_suppression_keeps_the_higher_score() -> None:
    long, short = segment(0, 0, 4, 0.7), segment(1, 0, 3, 0.8)  # overlap 3/4
    apart, chained = segment(0, 10, 12, 0.1), segment(2, 2, 4, 0.6)  # 1/4 with short, 1/2 with long
    assert suppress([long, short, apart, chained], 0.5) == [short, chained, apart]
    assert suppress([long, short], 0.75) == [short, long]
    same = [segment(1, 0, 1, 0.5), segment(0, 0, 1, 0.5)]
    assert suppress(same, 0.5) == same[:1]


def test_overlapping_classes_of_one_label_a_video() -> None:
    both = curve([[0.6, 0.7], [0.6, 0.7]])
    (found,) = find_segments(both, rule(thresholds=(0.5, 0.5)))
    assert found.label == 1
    assert len(find_segments(both, rule(thresholds=(0.5, 0.5), max_overlap=None))) == 2


def test_rules_are_checked() -> None:
    for options, words in (
        ({"thresholds": (0.5, 0)}, "threshold 0: must be above 0 and at most 1"),
        ({"thresholds": (float("nan"),)}, "threshold nan: must be above 0 and at most 1"),
        ({"keep": 1.1}, "keep 1.1: must be above 0 and at most 1"),
        ({"min_seconds": -1}, "minimum length -1 s: must be 0 or more"),
    ):
        with pytest.raises(ConfigError, match=words):
            rule(**options)
