"""Average precision of segments at a temporal overlap, as ActivityNet's evaluation computes it.

Segments of a class, from all videos, are ranked by score. Each is matched to the labelled segment
of its video that it overlaps most and that no better-ranked one has; without one at or above the
overlap, it is wrong. Average precision is the area under the curve of precision over recall, where
each precision counts as the highest at its recall or above (all points, not eleven).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hiera_video.eval.segments.find import FoundSegment, overlap

OVERLAPS = (0.3, 0.4, 0.5, 0.6, 0.7)
"""Overlaps (tIoU) of THUMOS14's protocol."""


@dataclass(frozen=True, kw_only=True)
class LabelledSegment:
    """A segment of a video as it was labelled."""

    label: int
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True, kw_only=True)
class ClassPrecision:
    """Average precision of one class."""

    label: int
    labelled: int
    """Number of labelled segments."""
    found: int
    """Number of found segments."""
    values: tuple[float, ...]
    """Average precision at each overlap, between 0 and 1."""


@dataclass(frozen=True, kw_only=True)
class SegmentPrecision:
    """Average precision of segments, by class and over all classes."""

    overlaps: tuple[float, ...]
    classes: tuple[ClassPrecision, ...]
    """Classes with labelled segments, in order of their index."""

    @property
    def means(self) -> tuple[float, ...]:
        """Mean over the classes (mAP) at each overlap."""
        return tuple(np.mean([row.values for row in self.classes], axis=0).tolist())

    @property
    def mean(self) -> float:
        """Mean over the classes and overlaps."""
        return float(np.mean(self.means))


AnySegment = TypeVar("AnySegment", FoundSegment, LabelledSegment)
Labelled = Mapping[str, Sequence[LabelledSegment]]
"""Labelled segments of each video."""
Found = Mapping[str, Sequence[FoundSegment]]
"""Found segments of each video."""


def segment_precision(
    labelled: Labelled, found: Found, overlaps: Sequence[float] = OVERLAPS
) -> SegmentPrecision:
    """Return the average precision of found segments.

    Args:
        labelled: Labelled segments of each video. Classes that have none in any video do not
            count, and neither do segments that are found of them.
        found: Found segments of each video; of equal scores, the first ranks higher.
        overlaps: Overlaps at which a found segment is right.
    """
    labels = sorted({segment.label for segments in labelled.values() for segment in segments})
    rows = []
    for label in labels:
        truth = {video: of_class(segments, label) for video, segments in labelled.items()}
        ranked = rank({video: of_class(segments, label) for video, segments in found.items()})
        total = sum(map(len, truth.values()))
        values = tuple(
            average_precision(match(truth, ranked, minimum), total) for minimum in overlaps
        )
        rows.append(ClassPrecision(label=label, labelled=total, found=len(ranked), values=values))
    return SegmentPrecision(overlaps=tuple(overlaps), classes=tuple(rows))


def of_class(segments: Iterable[AnySegment], label: int) -> list[AnySegment]:
    """Return the segments of one class."""
    return [segment for segment in segments if segment.label == label]


def rank(found: Found) -> list[tuple[str, FoundSegment]]:
    """Return (video, segment) of all videos, highest score first."""
    pairs = [(video, segment) for video, segments in found.items() for segment in segments]
    return sorted(pairs, key=lambda pair: -pair[1].score)


def match(
    labelled: Labelled, ranked: Sequence[tuple[str, FoundSegment]], minimum: float
) -> NDArray[np.bool_]:
    """Return for each found segment of a class whether it is right.

    Args:
        labelled: Labelled segments of the class, by video.
        ranked: (video, segment) of the class, in the order in which they may choose.
        minimum: Overlap that a match needs.
    """
    free = {video: list(segments) for video, segments in labelled.items()}
    right = np.zeros(len(ranked), bool)
    for place, (video, segment) in enumerate(ranked):
        candidates = free.get(video, [])
        overlaps = [overlap(segment, candidate) for candidate in candidates]
        best = int(np.argmax(overlaps)) if overlaps else 0
        # the overlap of two intervals that are equal in decimals may be 0.5 minus a rounding error
        if overlaps and overlaps[best] >= minimum - 1e-9:
            right[place] = True
            del candidates[best]
    return right


def average_precision(right: NDArray[np.bool_], total: int) -> float:
    """Return the area under the curve of precision over recall.

    Args:
        right: Whether each found segment is right, in the order of their scores.
        total: Number of labelled segments.

    >>> round(average_precision(np.array([True, False, True]), total=4), 3)  # 1/4 + 1/4 × 2/3
    0.417
    """
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    return float(highest[right].sum() / total) if total else 0.0
