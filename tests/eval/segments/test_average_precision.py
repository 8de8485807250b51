"""Average precision of segments against a table that was computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hiera_video.eval.segments.average_precision import (
    LabelledSegment,
    average_precision,
    segment_precision,
)
from hiera_video.eval.segments.find import FoundSegment


def labelled(label: int, start: float, end: float) -> LabelledSegment:
    return LabelledSegment(label=label, start_seconds=start, end_seconds=end)


def found(label: int, start: float, end: float, score: float) -> FoundSegment:
    return FoundSegment(label=label, start_seconds=start, end_seconds=end, score=score)


TRUTH = {
    "a": [labelled(0, 0, 10), labelled(0, 20, 30), labelled(1, 40, 50)],
    "b": [labelled(0, 5, 15), labelled(2, 0, 4)],
    "c": [],
}
FOUND = {
    "a": [
        found(0, 0, 9, 0.9),  # overlap 0.9 with the first
        found(0, 1, 10, 0.8),  # 0.9 too: a duplicate
        found(0, 24, 34, 0.6),  # 6 of 14: 0.43
        found(1, 44, 52, 0.5),  # 6 of 12: 0.5
    ],
    "b": [found(0, 5, 12, 0.7), found(3, 0, 1, 0.9)],  # 0.7; a class that nothing is labelled with
    "c": [found(1, 0, 5, 0.9)],  # in a video without segments
}


def test_the_table() -> None:
    result = segment_precision(TRUTH, FOUND)
    rows = {row.label: row for row in result.classes}
    assert {label: (row.labelled, row.found) for label, row in rows.items()} == {
        0: (3, 4),
        1: (1, 2),
        2: (1, 0),
    }
    # class 0, ranked: right (0.9), duplicate, right (0.7), and right up to an overlap of 0.43
    # precision 1, 1/2, 2/3, 3/4, the highest from there on: 1, 3/4, 3/4, 3/4
    full = (1 + 3 / 4 + 3 / 4) / 3
    # at 0.5 and more: right, wrong, right, wrong: 1, 1/2, 2/3, 1/2, the highest 1, 2/3, 2/3
    part = (1 + 2 / 3) / 3
    assert rows[0].values == pytest.approx((full, full, part, part, part))
    # class 1: the wrong one of video c ranks first; then 0.5 is right up to an overlap of 0.5
    assert rows[1].values == pytest.approx((1 / 2, 1 / 2, 1 / 2, 0, 0))
    assert rows[2].values == (0, 0, 0, 0, 0)
    assert result.means == pytest.approx(
        ((full + 0.5) / 3, (full + 0.5) / 3, (part + 0.5) / 3, part / 3, part / 3)
    )
    assert result.mean == pytest.approx((2 * full + 3 * part + 1.5) / 15)


def test_equal_scores_rank_in_their_order() -> None:
    truth = {"a": [labelled(0, 0, 1)]}
    right, wrong = found(0, 0, 1, 0.5), found(0, 5, 6, 0.5)
    assert segment_precision(truth, {"a": [right, wrong]}, [0.5]).mean == 1
    assert segment_precision(truth, {"a": [wrong, right]}, [0.5]).mean == 0.5


def test_a_found_segment_takes_the_best_one_that_is_free() -> None:
    truth = {"a": [labelled(0, 0, 10), labelled(0, 2, 12)]}
    pair = [found(0, 1, 11, 0.9), found(0, 2, 12, 0.8)]  # 9/11 with both; then 8/12 and 1
    assert segment_precision(truth, {"a": pair}, [0.6]).mean == 1
    # at 0.9 the first is wrong and leaves both to the second: precision 1/2 at recall 1/2
    assert segment_precision(truth, {"a": pair}, [0.9]).mean == pytest.approx(1 / 4)


def test_a_video_without_results_counts() -> None:
    truth = {"a": [labelled(0, 0, 1)], "b": [labelled(0, 0, 1)]}
    assert segment_precision(truth, {"a": [found(0, 0, 1, 1)]}, [0.5]).mean == 0.5


@pytest.mark.parametrize(
    ("right", "total", "expected"),
    [
        ([True], 1, 1),
        ([False, True], 1, 1 / 2),
        ([False, False, True, True], 2, (1 / 2 + 1 / 2) / 2),  # 1/3 counts as the later 1/2
        ([True, True], 4, 1 / 2),
        ([], 3, 0),
        ([], 0, 0),
    ],
)
def test_all_points_average_precision(right: list[bool], total: int, expected: float) -> None:
    assert average_precision(np.array(right, bool), total) == pytest.approx(expected)
