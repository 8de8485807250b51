"""Thresholds of segments, chosen on labelled videos."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hiera_video.eval.segments.average_precision import (
    OVERLAPS,
    Labelled,
    match,
    of_class,
    rank,
)
from hiera_video.eval.segments.find import ScoreCurve, class_segments

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
KEEPS = (1.0, 0.8, 0.6, 0.4)
"""Values that are tried."""


@dataclass(frozen=True, kw_only=True)
class ChosenThresholds:
    """The thresholds that find labelled segments best."""

    thresholds: Mapping[int, float]
    """Threshold of each class that has labelled segments."""
    keep: float
    f1: Mapping[int, float]
    """F1 of each of these classes, the mean over `OVERLAPS`."""

    @property
    def mean_f1(self) -> float:
        """Mean over the classes."""
        return float(np.mean(list(self.f1.values())))


def choose_thresholds(
    curves: Mapping[str, ScoreCurve],
    labelled: Labelled,
    *,
    min_seconds: float,
    skip: Collection[int] = (),
) -> ChosenThresholds:
    """Choose the thresholds with the highest F1, the mean over the overlaps 0.3 to 0.7.

    Each class has a threshold of its own, all share `keep`. Where several thresholds are equally
    good, the middle one is chosen.

    Args:
        curves: Smoothed scores of each video.
        labelled: Labelled segments of each video; at least one in all.
        min_seconds: Minimum length of a segment.
        skip: Classes without segments.
    """
    labels = {segment.label for segments in labelled.values() for segment in segments}
    edges = {video: curve.edges() for video, curve in curves.items()}

    def f1(label: int, threshold: float, keep: float) -> float:
        found = {
            video: class_segments(
                label, curve.scores[:, label], edges[video], threshold, keep, min_seconds
            )
            for video, curve in curves.items()
        }
        truth = {video: of_class(segments, label) for video, segments in labelled.items()}
        ranked, total = rank(found), sum(map(len, truth.values()))
        right = [int(match(truth, ranked, minimum).sum()) for minimum in OVERLAPS]
        return 2 * float(np.mean(right)) / (len(ranked) + total)

    choices = []
    for keep in KEEPS:
        best = {
            label: _middle_of_best([f1(label, threshold, keep) for threshold in THRESHOLDS])
            for label in sorted(labels - set(skip))
        }
        choices.append(
            ChosenThresholds(
                thresholds={label: THRESHOLDS[place] for label, (place, _) in best.items()},
                keep=keep,
                f1={label: value for label, (_, value) in best.items()},
            )
        )
    return max(choices, key=lambda choice: choice.mean_f1)  # of equals the first


def _middle_of_best(values: Sequence[float]) -> tuple[int, float]:
    """Return the place and value of the maximum: the middle of the first run of equal ones.

    >>> _middle_of_best([0.2, 0.9, 0.9, 0.9, 0.1, 0.9])
    (2, 0.9)
    """
    best = max(values)
    first = stop = values.index(best)
    while stop < len(values) and values[stop] == best:
        stop += 1
    return (first + stop - 1) // 2, best
