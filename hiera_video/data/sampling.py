"""Choose the frames of a clip: index arithmetic that needs the standard library alone.

A sampler checks the video's length, chooses where clips start, and computes frame indices. The
rules are the published ones, so a checkpoint that was trained elsewhere gets the frames it was
trained on: PySlowFast's for Kinetics (dense) and Something-Something (segments), and VideoMAE's
for two views of Something-Something.

    dense      |----[0   4   8  12  16  21 … 63]-----------|     consecutive, at `target_fps`
    segments   |-x--|--x-|x---|---x|-x--|--x-|x---|---x|--x|     one frame of each equal part
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from hiera_video.errors import ConfigError
from hiera_video.utils.checks import require

Sampling = Literal["dense", "segments"]
ShortVideos = Literal["repeat", "loop", "error"]
TestStarts = Literal["spread", "proportional"]


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """The `clip` section: which frames of a video form a clip."""

    num_frames: int = 16
    """Frames of a clip."""
    frame_stride: int = 4
    """Distance between the frames of a dense clip, in frames at `target_fps`."""
    target_fps: float | None = 30.0
    """Frame rate at which the stride counts, so that a clip lasts equally long in every video;
    unset: the video's own rate."""
    sampling: Sampling = "dense"
    """`dense`: evenly spaced frames (Kinetics). `segments`: one frame of each of `num_frames` equal
    parts of the video (Something-Something)."""
    short_videos: ShortVideos = "repeat"
    """Videos shorter than a clip: `repeat` the last frame, `loop` from the first, or stop with an
    `error`."""
    repeats: int = 1
    """Training samples of a video each time it is decoded (repeated sampling)."""
    test_starts: TestStarts = "spread"
    """Starts of dense test clips. `spread`: evenly, the last clip ends with the video (PySlowFast
    with USE_OFFSET_SAMPLING, as its masked pre-training configs set it). `proportional`: clip i of
    n starts at i/n of the last possible start (PySlowFast's default)."""

    def __post_init__(self) -> None:
        for name in ("num_frames", "frame_stride", "repeats"):
            value = getattr(self, name)
            require(value >= 1, f"clip.{name}={value}: must be 1 or more")
        require(
            self.target_fps is None or 0 < self.target_fps < math.inf,
            f"clip.target_fps={self.target_fps}: must be above 0; leave it unset to count the "
            "video's own frames",
        )
        for name, choices in (
            ("sampling", get_args(Sampling)),
            ("short_videos", get_args(ShortVideos)),
            ("test_starts", get_args(TestStarts)),
        ):
            value = getattr(self, name)
            require(value in choices, f"clip.{name}={value!r}: choose one of {', '.join(choices)}")


class VideoFacts(Protocol):
    """The facts about a video that a sampler needs; `VideoInfo` and `FrameRange` both have them."""

    @property
    def num_frames(self) -> int: ...
    @property
    def fps(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class FrameRange:
    """The frames that belong to a record; a sampler treats them as a video of its own."""

    first: int
    """Index of the range's first frame in the whole video; add it to the sampler's indices."""
    num_frames: int
    fps: float


def frame_range_of(
    times: Sequence[float], fps: float, start_seconds: float | None, end_seconds: float | None
) -> FrameRange:
    """Return the range of frames that are shown in `[start_seconds, end_seconds)`.

    Lists round times, so a tenth of a frame is tolerated: 3.33 s means frame 100 at 30 fps.

    Args:
        times: Presentation time of each frame of the video, in seconds, ascending.
        fps: Frame rate of the video.
        start_seconds: First time of the range; None: from the first frame.
        end_seconds: Time at which the range ends; None: to the last frame.

    Returns:
        The range; its `num_frames` is 0 if no frame is shown in that time.
    """
    slack = 0.1 / fps
    first = 0 if start_seconds is None else bisect_left(times, start_seconds - slack)
    stop = len(times) if end_seconds is None else bisect_left(times, end_seconds - slack)
    return FrameRange(first=first, num_frames=max(stop - first, 0), fps=fps)


# -- checks ------------------------------------------------------------------------------------


def check_length(video: VideoFacts, config: ClipConfig) -> None:
    """Check that a video is long enough to sample.

    Raises:
        ConfigError: It has no frames, or fewer than a clip and `short_videos` is `error`.
    """
    if video.num_frames < 1:
        raise ConfigError(
            "the video has no frame to sample; check its start and end seconds in the manifest"
        )
    if config.short_videos != "error":
        return
    if config.sampling == "segments":
        needed, key = float(config.num_frames), "clip.num_frames"
    else:
        needed, key = clip_span(config, video.fps), "clip.frame_stride"
    # 53.3 frames at 25 fps: the last index is 52, so 53 frames are enough
    if video.num_frames < math.floor(needed):
        raise ConfigError(
            f"clip spans {needed:g} frames but the video has {video.num_frames}; "
            f"lower {key} or set clip.short_videos=repeat"
        )


def check_num_clips(config: ClipConfig, num_clips: int, key: str = "test.clips") -> None:
    """Check that the sampling rule exists for this number of test clips.

    Args:
        config: The clip's settings.
        num_clips: Temporal views per video.
        key: Config key of `num_clips`, for the message.

    Raises:
        ConfigError: `num_clips` is below 1, or above 2 with `sampling=segments`.
    """
    require(num_clips >= 1, f"{key}={num_clips}: must be 1 or more")
    require(
        config.sampling != "segments" or num_clips <= 2,
        f"{key}={num_clips}: clip.sampling=segments has 1 view (midpoints) or 2 (interleaved); "
        "choose one of them",
    )


# -- dense: PySlowFast's Kinetics sampling -----------------------------------------------------


def clip_span(config: ClipConfig, fps: float) -> float:
    """Return the number of source frames from a clip's first frame to its last, both counted.

    The span is fractional where `fps` differs from `target_fps`: 16 × 4 frames at 30 fps are 53.3
    frames of a 25 fps video.
    """
    span = float(config.num_frames * config.frame_stride)
    return span if config.target_fps is None else span * fps / config.target_fps


def max_start(num_frames: int, span: float) -> float:
    """Return the last position at which a clip fits, or 0 if the video is too short."""
    return max(num_frames - span, 0.0)


def random_start(*, num_frames: int, span: float, generator: random.Random) -> float:
    """Draw a training clip's start: uniform over all positions that fit, fractions included."""
    return generator.uniform(0.0, max_start(num_frames, span))


def uniform_starts(*, num_frames: int, span: float, num_clips: int) -> list[int]:
    """Return test starts from the first frame to (nearly) the last one that fits.

    A single clip starts in the middle. Source: PySlowFast with `USE_OFFSET_SAMPLING`.

    >>> uniform_starts(num_frames=100, span=64, num_clips=3)
    [0, 18, 36]
    """
    last = max_start(num_frames, span)
    if num_clips == 1:
        return [math.floor(last / 2)]
    step = math.floor(last / (num_clips - 1))
    return [clip * step for clip in range(num_clips)]


def proportional_starts(*, num_frames: int, span: float, num_clips: int) -> list[float]:
    """Return test starts at i/num_clips of the last position that fits.

    No clip reaches the end of the video. Source: PySlowFast's default.

    >>> proportional_starts(num_frames=100, span=64, num_clips=3)
    [0.0, 12.0, 24.0]
    """
    last = max_start(num_frames, span)
    return [last * clip / num_clips for clip in range(num_clips)]


def dense_indices(
    start: float, *, span: float, count: int, num_frames: int, short_videos: ShortVideos = "repeat"
) -> list[int]:
    """Return `count` evenly spaced frame indices from `start` to `start + span - 1`, ascending.

    Both ends count: 64 frames give 0, 4, 8, 12, 16, 21, … 63 and not `[::4]`. Source: PySlowFast,
    `linspace(start, start + span - 1, count).long()`, clamped to the video.

    Args:
        start: First position, in frames; may be fractional.
        span: Source frames from the first to the last position, both counted (`clip_span`).
        count: Frames of the clip.
        num_frames: Frames of the video; indices stay below it.
        short_videos: `loop` wraps positions beyond the end; anything else repeats the last frame.
    """
    if count == 1:
        positions = [start]
    else:
        # far below the target rate a clip lasts less than one frame, and repeats that frame
        distance = max(span - 1, 0.0)
        # multiply before dividing: 5 * 63 / 15 is exactly 21, 5 * (63 / 15) need not be
        positions = [start + i * distance / (count - 1) for i in range(count)]
    if short_videos == "loop":
        return [math.floor(position) % num_frames for position in positions]
    return [math.floor(min(max(position, 0.0), num_frames - 1)) for position in positions]


# -- segments: PySlowFast's and VideoMAE's Something-Something sampling ------------------------


def segment_bounds(num_frames: int, count: int) -> list[tuple[int, int]]:
    """Return the first and last frame, both included, of each of `count` equal segments.

    Neighbouring segments share a frame. Python rounds half to even, as numpy does.

    >>> segment_bounds(45, 16)[:3]
    [(0, 3), (3, 6), (6, 8)]
    """
    segment = (num_frames - 1) / count
    return [(round(segment * i), round(segment * (i + 1))) for i in range(count)]


def segment_midpoints(num_frames: int, count: int) -> list[int]:
    """Return the middle frame of each segment: PySlowFast's single test view."""
    return [(first + last) // 2 for first, last in segment_bounds(num_frames, count)]


def random_segment_frames(num_frames: int, count: int, generator: random.Random) -> list[int]:
    """Draw one frame of each segment, both ends included: PySlowFast's training clip."""
    return [generator.randint(first, last) for first, last in segment_bounds(num_frames, count)]


def interleaved_views(num_frames: int, count: int) -> tuple[list[int], list[int]]:
    """Return two test views that alternate between the starts and middles of `count` segments.

    Source: VideoMAE.

    >>> interleaved_views(num_frames=40, count=4)
    ([0, 10, 20, 30], [5, 15, 25, 35])
    """
    segment = num_frames / count
    positions = sorted(
        [int(segment / 2 + segment * i) for i in range(count)]
        + [int(segment * i) for i in range(count)]
    )
    return positions[0::2], positions[1::2]


# -- samplers ----------------------------------------------------------------------------------


def training_clip(video: VideoFacts, config: ClipConfig, generator: random.Random) -> list[int]:
    """Return the frame indices of one random clip.

    Args:
        video: Length and frame rate of the video or range.
        config: The sampling rule and its settings.
        generator: Source of the start, or of one frame per segment.

    Returns:
        `config.num_frames` indices below `video.num_frames`, ascending unless a short video loops.

    Raises:
        ConfigError: The video is too short (see `check_length`).
    """
    check_length(video, config)
    if config.sampling == "segments":
        return random_segment_frames(video.num_frames, config.num_frames, generator)
    span = clip_span(config, video.fps)
    start = random_start(num_frames=video.num_frames, span=span, generator=generator)
    return _dense_clips([start], span, video, config)[0]


def test_clips(video: VideoFacts, config: ClipConfig, num_clips: int) -> list[list[int]]:
    """Return the frame indices of all test clips of a video, in order of time.

    Args:
        video: Length and frame rate of the video or range.
        config: The sampling rule and its settings.
        num_clips: Temporal views per video; 1 or 2 with `sampling=segments`.

    Returns:
        `num_clips` lists of `config.num_frames` indices each.

    Raises:
        ConfigError: The video is too short, or there is no rule for `num_clips`.
    """
    check_num_clips(config, num_clips)
    check_length(video, config)
    if config.sampling == "segments":
        if num_clips == 1:
            return [segment_midpoints(video.num_frames, config.num_frames)]
        return list(interleaved_views(video.num_frames, config.num_frames))
    span = clip_span(config, video.fps)
    place = uniform_starts if config.test_starts == "spread" else proportional_starts
    starts = place(num_frames=video.num_frames, span=span, num_clips=num_clips)
    return _dense_clips(starts, span, video, config)


# pytest would collect it as a test wherever it is imported
test_clips.__test__ = False  # type: ignore[attr-defined]


def _dense_clips(
    starts: Sequence[float], span: float, video: VideoFacts, config: ClipConfig
) -> list[list[int]]:
    return [
        dense_indices(
            start,
            span=span,
            count=config.num_frames,
            num_frames=video.num_frames,
            short_videos=config.short_videos,
        )
        for start in starts
    ]
