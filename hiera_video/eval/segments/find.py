"""Segments of a video from the scores of its classes along time: arithmetic on arrays.

score    ▁▁▃▅▇▇▇▅▅▃▁▁▁▃▁      smoothed
≥ high       ███                a segment needs this
≥ low      ████████     ▁       and lasts as long as this
segment    [      ]             unless it is too short, or overlaps one of a higher score
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hiera_video.utils.checks import require

Floats = NDArray[np.float64]
EPSILON = 1e-6
"""Tolerance, in seconds, when times are compared."""


class TimeSpan(Protocol):
    """Anything with a start and an end."""

    @property
    def start_seconds(self) -> float: ...
    @property
    def end_seconds(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class FoundSegment:
    """A segment of a video in which a class was found."""

    label: int
    """Class index."""
    start_seconds: float
    """Seconds since the first frame of the video."""
    end_seconds: float
    score: float
    """Mean of the class's smoothed score over the segment, between 0 and 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreCurve:
    """Scores of all classes along a video, one row for each window of it."""

    centres: Floats
    """[n] middle of each window in seconds, ascending."""
    scores: NDArray[np.float32]
    """[n, K] probability of each class."""
    start_seconds: float
    """Start of the first window."""
    end_seconds: float
    """End of the last window."""

    def edges(self) -> Floats:
        """Return [n + 1] times between which each window's scores hold.

        A window stands for the time that is nearest to its middle; the first and the last also
        stand for the time up to the ends.
        """
        middles = (self.centres[1:] + self.centres[:-1]) / 2
        return np.concatenate([[self.start_seconds], middles, [self.end_seconds]])

    def smoothed(self, seconds: float) -> ScoreCurve:
        """Return the curve with each row averaged over the windows in so many seconds around it."""
        reach = seconds / 2 + EPSILON
        first = np.searchsorted(self.centres, self.centres - reach)
        stop = np.searchsorted(self.centres, self.centres + reach, side="right")
        sums = np.cumsum(self.scores, axis=0, dtype=np.float64)
        sums = np.concatenate([np.zeros_like(sums[:1]), sums])
        means = (sums[stop] - sums[first]) / (stop - first)[:, None]
        return replace(self, scores=means.astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class SegmentRule:
    """Rule that turns a smoothed score curve into segments."""

    thresholds: tuple[float, ...]
    """For each class, the score that a segment reaches somewhere."""
    keep: float
    """A segment lasts while the score is at least this share of its class's threshold."""
    min_seconds: float
    """Shorter segments are dropped."""
    max_overlap: float | None
    """Of two segments that overlap more than this (intersection over union), of any classes, the
    one with the lower score is dropped; None: of no two."""

    def __post_init__(self) -> None:
        for value in self.thresholds:
            require(0 < value <= 1, f"threshold {value}: must be above 0 and at most 1")
        require(0 < self.keep <= 1, f"keep {self.keep}: must be above 0 and at most 1")
        require(self.min_seconds >= 0, f"minimum length {self.min_seconds} s: must be 0 or more")


def find_segments(
    curve: ScoreCurve, rule: SegmentRule, *, skip: Collection[int] = ()
) -> list[FoundSegment]:
    """Return the segments of all classes, in order of time.

    Args:
        curve: Smoothed scores of a video.
        rule: Thresholds, minimum length and overlap.
        skip: Classes that get no segments, such as the background.
    """
    edges, found = curve.edges(), list[FoundSegment]()
    for label, threshold in enumerate(rule.thresholds):
        if label not in skip:
            scores = curve.scores[:, label]
            found += class_segments(label, scores, edges, threshold, rule.keep, rule.min_seconds)
    if rule.max_overlap is not None:
        found = suppress(found, rule.max_overlap)
    return sorted(found, key=lambda segment: (segment.start_seconds, segment.label))


def class_segments(
    label: int,
    scores: NDArray[np.float32],
    edges: Floats,
    threshold: float,
    keep: float,
    min_seconds: float,
) -> list[FoundSegment]:
    """Return the segments of one class, in order of time.

    Args:
        label: Class index.
        scores: [n] smoothed scores.
        edges: [n + 1] times between which the scores hold.
        threshold: As in `SegmentRule`, and so are the others.
        keep: Share of the threshold.
        min_seconds: Minimum length.
    """
    lengths, found = np.diff(edges), []
    for first, stop in hysteresis(scores, high=threshold, low=keep * threshold):
        start, end = float(edges[first]), float(edges[stop])
        if end - start < max(min_seconds - EPSILON, EPSILON):
            continue
        score = float(np.average(scores[first:stop], weights=lengths[first:stop]))
        found.append(FoundSegment(label=label, start_seconds=start, end_seconds=end, score=score))
    return found


def hysteresis(scores: NDArray[np.float32], *, high: float, low: float) -> list[tuple[int, int]]:
    """Return the half-open ranges of scores of at least `low` that somewhere reach `high`.

    >>> hysteresis(np.array([0.5, 0.1, 0.4, 0.9, 0.5, 0.1], np.float32), high=0.8, low=0.4)
    [(2, 5)]
    """
    # a score that was rounded to float32 counts as the threshold that it was rounded from
    above = np.concatenate([[False], scores >= np.float32(low), [False]])
    (changes,) = np.nonzero(above[1:] != above[:-1])
    ranges = zip(changes[::2].tolist(), changes[1::2].tolist())
    return [part for part in ranges if scores[slice(*part)].max() >= np.float32(high)]


def suppress(segments: Iterable[FoundSegment], max_overlap: float) -> list[FoundSegment]:
    """Return the segments without those that overlap one of a higher score too much.

    Args:
        segments: Of any classes; of equal scores, the first counts as higher.
        max_overlap: Intersection over union that two segments may have.
    """
    kept: list[FoundSegment] = []
    for segment in sorted(segments, key=lambda segment: -segment.score):
        if all(overlap(segment, other) <= max_overlap for other in kept):
            kept.append(segment)
    return kept


def overlap(one: TimeSpan, other: TimeSpan) -> float:
    """Return the intersection over union of two segments (tIoU), 0 if they do not meet."""
    start = max(one.start_seconds, other.start_seconds)
    end = min(one.end_seconds, other.end_seconds)
    if end <= start:
        return 0.0
    lengths = (span.end_seconds - span.start_seconds for span in (one, other))
    return (end - start) / (sum(lengths) - (end - start))
