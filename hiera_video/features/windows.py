"""Which stretches of a video get a feature, and which frames the model sees of each: pure arithmetic.

|--------|--------|--------|-----|         stride = window, the last one is a tail
|--------|
    |--------|
        |--------|                         stride = window / 2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hiera_video.data.sampling import ClipConfig, FrameRange, clip_span, frame_range_of, test_clips
from hiera_video.errors import ConfigError
from hiera_video.features.config import FeaturesConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """One stretch of a video, and the clip that stands for it."""

    number: int
    """It starts at `number` strides; a gap in the video (variable rate) may leave a number out."""
    start_seconds: float
    """On the file's clock."""
    end_seconds: float
    tail: bool
    """The video ends before the stretch would."""
    frames: tuple[int, ...]
    """Frames of the clip, by their number in the whole video."""


def starts_along(
    length: float, window: float, stride: float, *, slack: float = 0.0
) -> tuple[int, bool]:
    """How many whole windows fit, and whether something is left for a tail that starts at the next stride.

    `slack`: so much may be missing from a window, or left after the last one, without being counted.

    >>> starts_along(10, 4, 4), starts_along(10, 4, 3), starts_along(8, 4, 4), starts_along(3, 4, 4)
    ((2, True), (3, False), (2, False), (0, True))
    """
    whole = int((length - window + slack) // stride) + 1 if length + slack >= window else 0
    seen = (whole - 1) * stride + window if whole else 0.0
    left = length - max(
        seen, whole * stride
    )  # with stride > window, the next window may start beyond the end
    return whole, length - seen > slack and left > slack


def check_windows(config: FeaturesConfig, clip: ClipConfig) -> None:
    """`ConfigError` where no window can be made of the two sections."""
    if clip.short_videos == "error":
        raise ConfigError(
            "clip.short_videos=error: the tail of a video is shorter than a clip; set clip.short_videos=repeat"
        )
    if clip.sampling == "segments" and config.window is None and config.stride is not None:
        raise ConfigError(
            f"features.stride={config.stride}: clip.sampling=segments spreads its frames over any length; set "
            "features.window too"
        )


def stretches(
    times: Sequence[float], fps: float, record: FrameRange, clip: ClipConfig, config: FeaturesConfig
) -> list[Stretch]:
    """The stretches of the part `record` of a video whose frames are shown at `times` (seconds, ascending)."""
    if (
        config.window is None and clip.sampling == "segments"
    ):  # such a clip is of the whole video, however long
        return [_stretch(0, record, times, fps, clip, tail=False)]
    if config.unit == "frames":
        return _by_frames(times, fps, record, clip, config)
    window = config.window or clip_span(clip, fps) / fps
    stride = config.stride or window
    begin, stop = times[record.first], record.first + record.num_frames
    end = times[stop - 1] + 1 / fps
    slack = 0.1 / fps
    whole, has_tail = starts_along(end - begin, window, stride, slack=slack)
    found = []
    for number in range(whole + (has_tail and config.tail == "keep")):
        start = begin + number * stride
        part = frame_range_of(times, fps, start, start + window)
        part = replace(part, num_frames=min(part.num_frames, stop - part.first))
        if part.num_frames < 1:
            continue  # a gap in a video of variable rate
        found.append(
            _stretch(
                number,
                part,
                times,
                fps,
                clip,
                tail=number >= whole,
                seconds=(start, min(start + window, end)),
            )
        )
    return found


def _by_frames(
    times: Sequence[float], fps: float, record: FrameRange, clip: ClipConfig, config: FeaturesConfig
) -> list[Stretch]:
    window = int(config.window or max(round(clip_span(clip, fps)), 1))
    stride = int(config.stride or window)
    whole, has_tail = starts_along(record.num_frames, window, stride)
    found = []
    for number in range(whole + (has_tail and config.tail == "keep")):
        start = number * stride
        part = FrameRange(
            first=record.first + start, num_frames=min(window, record.num_frames - start), fps=fps
        )
        found.append(_stretch(number, part, times, fps, clip, tail=number >= whole))
    return found


def _stretch(
    number: int,
    part: FrameRange,
    times: Sequence[float],
    fps: float,
    clip: ClipConfig,
    *,
    tail: bool,
    seconds: tuple[float, float] | None = None,
) -> Stretch:
    (indices,) = test_clips(part, clip, 1)
    start, end = seconds or (times[part.first], times[part.first + part.num_frames - 1] + 1 / fps)
    frames = tuple(part.first + index for index in indices)
    return Stretch(number=number, start_seconds=start, end_seconds=end, tail=tail, frames=frames)
