"""Windows of a video that get a feature, and the frames of each window's clip: pure arithmetic.

|--------|--------|--------|-----|         stride = window; the last window is a tail
|--------|
    |--------|
        |--------|                         stride = window / 2
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hiera_video.data.sampling import ClipConfig, FrameRange, clip_span, frame_range_of, test_clips
from hiera_video.errors import ConfigError
from hiera_video.features.config import FeaturesConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """An interval of a video and the clip that represents it."""

    number: int
    """The window starts at `number` strides; a gap in a video of variable rate skips numbers."""
    start_seconds: float
    """Start on the file's clock."""
    end_seconds: float
    """End on the file's clock."""
    tail: bool
    """True if the video ends before a full window would."""
    frames: tuple[int, ...]
    """Frame indices of the clip in the whole video."""


WindowRule = Callable[[Sequence[float], float, FrameRange], list[Window]]
"""Maps (frame times in seconds, fps, frame range of the record) to the windows of a video."""


def count_windows(
    length: float, window: float, stride: float, *, slack: float = 0.0
) -> tuple[int, bool]:
    """Return how many full windows fit, and whether a tail is left that starts at the next stride.

    Args:
        length: Length of the video, in the same unit as `window` and `stride`.
        window: Length of a window.
        stride: Distance between the starts of two windows.
        slack: So much may be missing from a window, or be left after the last one.

    >>> count_windows(10, 4, 4), count_windows(10, 4, 3), count_windows(8, 4, 4)
    ((2, True), (3, False), (2, False))
    """
    full = int((length - window + slack) // stride) + 1 if length + slack >= window else 0
    covered = (full - 1) * stride + window if full else 0.0
    # with stride > window, the next window may start beyond the end
    left = length - max(covered, full * stride)
    return full, length - covered > slack and left > slack


def check_windows(config: FeaturesConfig, clip: ClipConfig) -> None:
    """Check that the two config sections define windows.

    Raises:
        ConfigError: `clip.short_videos=error` refuses tails, or `features.window` is missing.
    """
    if clip.short_videos == "error":
        raise ConfigError(
            "clip.short_videos=error: the tail of a video is shorter than a clip; set "
            "clip.short_videos=repeat"
        )
    if clip.sampling == "segments" and config.window is None and config.stride is not None:
        raise ConfigError(
            f"features.stride={config.stride}: clip.sampling=segments has clips of any length; set "
            "features.window too"
        )


def sliding_windows(
    times: Sequence[float], fps: float, record: FrameRange, clip: ClipConfig, config: FeaturesConfig
) -> list[Window]:
    """Return the windows of a video, or of the part of it that `record` is.

    Args:
        times: Presentation time of each frame of the video, in seconds, ascending.
        fps: Frame rate of the video.
        record: Frames that belong to the record.
        clip: Rule for the frames of a window's clip.
        config: Length, stride and unit of the windows.

    Returns:
        The windows in order of time; the last one may be a tail.
    """
    # without `window`, a clip of segments covers the whole video, however long it is
    if config.window is None and clip.sampling == "segments":
        return [_window(0, record, times, fps, clip, tail=False)]
    if config.unit == "frames":
        return _windows_in_frames(times, fps, record, clip, config)
    length = config.window or clip_span(clip, fps) / fps
    stride = config.stride or length
    begin, stop = times[record.first], record.first + record.num_frames
    end = times[stop - 1] + 1 / fps
    full, has_tail = count_windows(end - begin, length, stride, slack=0.1 / fps)
    windows = []
    for number in range(full + (has_tail and config.tail == "keep")):
        start = begin + number * stride
        part = frame_range_of(times, fps, start, start + length)
        part = replace(part, num_frames=min(part.num_frames, stop - part.first))
        if part.num_frames < 1:
            continue  # a gap in a video of variable rate
        seconds = start, min(start + length, end)
        windows.append(_window(number, part, times, fps, clip, number >= full, seconds))
    return windows


def _windows_in_frames(
    times: Sequence[float], fps: float, record: FrameRange, clip: ClipConfig, config: FeaturesConfig
) -> list[Window]:
    length = int(config.window or max(round(clip_span(clip, fps)), 1))
    stride = int(config.stride or length)
    full, has_tail = count_windows(record.num_frames, length, stride)
    windows = []
    for number in range(full + (has_tail and config.tail == "keep")):
        start = number * stride
        num_frames = min(length, record.num_frames - start)
        part = FrameRange(first=record.first + start, num_frames=num_frames, fps=fps)
        windows.append(_window(number, part, times, fps, clip, number >= full))
    return windows


def _window(
    number: int,
    part: FrameRange,
    times: Sequence[float],
    fps: float,
    clip: ClipConfig,
    tail: bool,
    seconds: tuple[float, float] | None = None,
) -> Window:
    (indices,) = test_clips(part, clip, 1)
    start, end = seconds or (times[part.first], times[part.first + part.num_frames - 1] + 1 / fps)
    frames = tuple(part.first + index for index in indices)
    return Window(number=number, start_seconds=start, end_seconds=end, tail=tail, frames=frames)


def view_windows(
    times: Sequence[float], fps: float, record: FrameRange, clip: ClipConfig, num_clips: int
) -> list[Window]:
    """Return the clips of a multi-view test as windows, each as long as its clip.

    Args:
        times: Presentation time of each frame of the video, in seconds, ascending.
        fps: Frame rate of the video.
        record: Frames that belong to the record.
        clip: Rule for the frames of a clip.
        num_clips: Temporal views per video.
    """
    views = [
        tuple(record.first + index for index in indices)
        for indices in test_clips(record, clip, num_clips)
    ]
    return [
        Window(
            number=number,
            start_seconds=times[min(frames)],
            end_seconds=times[max(frames)] + 1 / fps,
            tail=False,
            frames=frames,
        )
        for number, frames in enumerate(views)
    ]
