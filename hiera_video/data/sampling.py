"""Which frames make a clip: pure arithmetic on frame numbers, standard library alone.

A sampler is: facts about the video -> where the clip starts -> frame indices. The rules are the published ones, so that
a checkpoint trained elsewhere sees here the frames that it was trained on: PySlowFast's for Kinetics ("dense") and
Something-Something ("segments"), and VideoMAE's for two views of the latter.

    dense      |----[0   4   8  12  16  21 … 63]-----------|     one stretch of time, fps-aware
    segments   |-x--|--x-|x---|---x|-x--|--x-|x---|---x|--x|     one frame of each of num_frames equal parts
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from hiera_video.errors import ConfigError

Sampling = Literal["dense", "segments"]
ShortVideos = Literal["repeat", "loop", "error"]
TestStarts = Literal["spread", "proportional"]


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """The `clip` section: which frames of a video the model sees at once."""

    num_frames: int = 16
    """Frames of a clip."""
    frame_stride: int = 4
    """Frames from one to the next (dense), counted at `target_fps`."""
    target_fps: float | None = 30.0
    """Frame rate that the stride is counted at, so that a clip lasts as long in any video; unset: the video's own."""
    sampling: Sampling = "dense"
    """`dense`: one stretch of the video (Kinetics). `segments`: one frame of each equal part (Something-Something)."""
    short_videos: ShortVideos = "repeat"
    """A video with fewer frames than the clip spans: repeat its last frame, start over, or stop with an error."""
    repeats: int = 1
    """Training samples taken of a video each time it is decoded (repeated sampling)."""
    test_starts: TestStarts = "spread"
    """Where test clips start: the last one ends with the video (`spread`: PySlowFast with USE_OFFSET_SAMPLING, as
    masked pre-training sets it), or each at its share of the room (`proportional`: PySlowFast's default)."""

    def __post_init__(self) -> None:
        for name in ("num_frames", "frame_stride", "repeats"):
            value = getattr(self, name)
            if not value >= 1:
                raise ConfigError(f"clip.{name}={value}: must be 1 or more")
        if self.target_fps is not None and not 0 < self.target_fps < math.inf:
            raise ConfigError(
                f"clip.target_fps={self.target_fps}: must be above 0; leave it unset to count source frames"
            )
        for name, choices in (
            ("sampling", ("dense", "segments")),
            ("short_videos", ("repeat", "loop", "error")),
            ("test_starts", ("spread", "proportional")),
        ):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"clip.{name}={getattr(self, name)!r}: choose one of {', '.join(choices)}"
                )


class VideoFacts(Protocol):
    """What a sampler has to know about a video; a decoder's `VideoInfo` and `Window` both fit."""

    @property
    def num_frames(self) -> int: ...
    @property
    def fps(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class FrameRange:
    """The part of a video that a record is about; a sampler sees it as a video of its own."""

    first: int
    """Index in the whole video of the window's first frame; add it to the sampler's indices."""
    num_frames: int
    fps: float


def frame_range_of(
    times: Sequence[float], fps: float, start_seconds: float | None, end_seconds: float | None
) -> FrameRange:
    """Frames shown in [start_seconds, end_seconds); `times` are the frames' presentation times, ascending.

    A time written with few digits (3.33 for frame 100 at 30 fps) means the frame it was rounded from: a tenth of a
    frame is forgiven. An empty window has `num_frames` 0.
    """
    slack = 0.1 / fps
    first = 0 if start_seconds is None else bisect_left(times, start_seconds - slack)
    stop = len(times) if end_seconds is None else bisect_left(times, end_seconds - slack)
    return FrameRange(first=first, num_frames=max(stop - first, 0), fps=fps)


# -- dense: PySlowFast's Kinetics sampling -----------------------------------------------------------------------------


def clip_span(config: ClipConfig, fps: float) -> float:
    """Source frames from a clip's first to its last, both counted; a fraction where fps is not `target_fps`."""
    span = float(config.num_frames * config.frame_stride)
    return span if config.target_fps is None else span * fps / config.target_fps


def max_start(num_frames: int, span: float) -> float:
    """Last place where a clip of `span` frames can start; 0 in a video that is too short."""
    return max(num_frames - span, 0.0)


def random_start(*, num_frames: int, span: float, generator: random.Random) -> float:
    """Training: anywhere that the clip fits, fractions of a frame included."""
    return generator.uniform(0.0, max_start(num_frames, span))


def uniform_starts(*, num_frames: int, span: float, num_clips: int) -> list[int]:
    """Test, `spread`: whole frames from the video's start to (nearly) its end; a single clip sits in the middle.

    >>> uniform_starts(num_frames=100, span=64, num_clips=3)
    [0, 18, 36]
    """
    room = max_start(num_frames, span)
    if num_clips == 1:
        return [math.floor(room / 2)]
    step = math.floor(room / (num_clips - 1))
    return [clip * step for clip in range(num_clips)]


def proportional_starts(*, num_frames: int, span: float, num_clips: int) -> list[float]:
    """Test, `proportional`: clip i starts at i/num_clips of the room, so the video's end is never reached.

    >>> proportional_starts(num_frames=100, span=64, num_clips=3)
    [0.0, 12.0, 24.0]
    """
    room = max_start(num_frames, span)
    return [room * clip / num_clips for clip in range(num_clips)]


def dense_positions(start: float, span: float, count: int) -> list[float]:
    """`count` places from `start` to `start + span - 1`, both included, evenly spaced; fractions of frames."""
    if count == 1:
        return [start]
    # multiply before dividing: 5 * 63 / 15 is 21 exactly, 5 * (63 / 15) need not be
    return [start + i * (span - 1) / (count - 1) for i in range(count)]


def dense_indices(
    start: float, *, span: float, count: int, num_frames: int, short_videos: ShortVideos = "repeat"
) -> list[int]:
    """Frames of the clip that starts at `start`: positions cut to whole frames, inside the video.

    64 frames give 0, 4, 8, 12, 16, 21, … 63 and not `[::4]`: the clip's last frame counts.
    """
    positions = dense_positions(start, span, count)
    if short_videos == "loop":
        return [math.floor(position) % num_frames for position in positions]
    return [math.floor(min(max(position, 0.0), num_frames - 1)) for position in positions]


# -- segments: PySlowFast's and VideoMAE's Something-Something sampling ------------------------------------------------


def segment_bounds(num_frames: int, count: int) -> list[tuple[int, int]]:
    """First and last frame, both included, of each of `count` equal parts; neighbours share a frame."""
    segment = (num_frames - 1) / count
    return [
        (round(segment * i), round(segment * (i + 1))) for i in range(count)
    ]  # round half to even, as numpy


def segment_midpoints(num_frames: int, count: int) -> list[int]:
    """Test, one view: the middle frame of each segment."""
    return [(first + last) // 2 for first, last in segment_bounds(num_frames, count)]


def segment_draw(num_frames: int, count: int, generator: random.Random) -> list[int]:
    """Training: one random frame of each segment, its ends included."""
    return [generator.randint(first, last) for first, last in segment_bounds(num_frames, count)]


def segment_views(num_frames: int, count: int) -> tuple[list[int], list[int]]:
    """Test, two views that interleave (VideoMAE's rule): the segments' starts and their middles."""
    tick = num_frames / count
    positions = sorted(
        [int(tick / 2 + tick * i) for i in range(count)] + [int(tick * i) for i in range(count)]
    )
    return positions[0::2], positions[1::2]


# -- what the datasets call --------------------------------------------------------------------------------------------


def training_clip(video: VideoFacts, config: ClipConfig, generator: random.Random) -> list[int]:
    """Frame indices of one random clip, ascending unless a short video loops. `ConfigError` if too short."""
    check_length(video, config)
    if config.sampling == "segments":
        return segment_draw(video.num_frames, config.num_frames, generator)
    span = clip_span(config, video.fps)
    start = random_start(num_frames=video.num_frames, span=span, generator=generator)
    return _dense(start, span, video, config)


def test_clips(video: VideoFacts, config: ClipConfig, num_clips: int) -> list[list[int]]:
    """Frame indices of each temporal view of a test, in order of time. `ConfigError` if too short."""
    check_num_clips(config, num_clips)
    check_length(video, config)
    if config.sampling == "segments":
        if num_clips == 1:
            return [segment_midpoints(video.num_frames, config.num_frames)]
        return list(segment_views(video.num_frames, config.num_frames))
    span = clip_span(config, video.fps)
    starts: Sequence[float]
    if config.test_starts == "spread":
        starts = uniform_starts(num_frames=video.num_frames, span=span, num_clips=num_clips)
    else:
        starts = proportional_starts(num_frames=video.num_frames, span=span, num_clips=num_clips)
    return [_dense(start, span, video, config) for start in starts]


# pytest collects functions of this name wherever they are imported
test_clips.__test__ = False  # type: ignore[attr-defined]


def check_num_clips(config: ClipConfig, num_clips: int, key: str = "test.clips") -> None:
    """Stop if `config` has no rule for so many temporal views; `key` is what the configuration calls them."""
    if not num_clips >= 1:
        raise ConfigError(f"{key}={num_clips}: must be 1 or more")
    if config.sampling == "segments" and num_clips > 2:
        raise ConfigError(
            f"{key}={num_clips}: clip.sampling=segments has 1 view (midpoints) or 2 (interleaved); choose one of them"
        )


def check_length(video: VideoFacts, config: ClipConfig) -> None:
    """Stop if the video has no frame, or too few for the clip and `short_videos=error` asks for that."""
    if video.num_frames < 1:
        raise ConfigError(
            "the video has no frame to sample; check its start and end seconds in the manifest"
        )
    if config.short_videos != "error":
        return
    if config.sampling == "segments":
        needed: float = config.num_frames
    else:
        needed = clip_span(config, video.fps)
    if video.num_frames < math.floor(
        needed
    ):  # at 25 fps the last of 53.3 frames is number 52: 53 are enough
        remedy = (
            "lower clip.num_frames" if config.sampling == "segments" else "lower clip.frame_stride"
        )
        raise ConfigError(
            f"clip spans {needed:g} frames but the video has {video.num_frames}; "
            f"{remedy} or set clip.short_videos=repeat"
        )


def _dense(start: float, span: float, video: VideoFacts, config: ClipConfig) -> list[int]:
    return dense_indices(
        start,
        span=span,
        count=config.num_frames,
        num_frames=video.num_frames,
        short_videos=config.short_videos,
    )
