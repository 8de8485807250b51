"""Choose the frames of a clip around a key frame. Pure arithmetic."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

TOLERANCE = 0.1
"""Share of a frame by which lists may round their times."""


def frame_at(times: Sequence[float], fps: float, seconds: float) -> int | None:
    """Return the frame that is shown at a time, or None if the video does not show one then.

    Args:
        times: Presentation time of each frame, ascending.
        fps: Frame rate.
        seconds: Time since the start of the video.

    >>> frame_at([0.0, 0.5, 1.0], 2.0, 0.7), frame_at([0.0, 0.5, 1.0], 2.0, 1.6)
    (1, None)
    """
    slack = TOLERANCE / fps
    if not times or seconds < times[0] - slack or seconds > times[-1] + 1 / fps + slack:
        return None
    return max(bisect_right(times, seconds + slack) - 1, 0)


def centred_indices(center: int, *, count: int, stride: float, num_frames: int) -> list[int]:
    """Return `count` frames around `center`, which is the one at `count // 2` of an even clip.

    Source: PySlowFast, `range(center - count * stride // 2, …, stride)`, clamped to the video.

    Args:
        center: The key frame.
        count: Frames of the clip.
        stride: Distance of two frames; fractional where frame rates differ.
        num_frames: Frames of the video.

    >>> centred_indices(100, count=4, stride=4, num_frames=106)
    [92, 96, 100, 104]
    """
    start = center - count * stride / 2
    last = num_frames - 1
    return [min(max(math.floor(start + number * stride), 0), last) for number in range(count)]
