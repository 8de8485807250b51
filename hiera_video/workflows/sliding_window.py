"""Predictions along a video: one for each segment of a sliding window."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import count, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hiera_video.config.schema import Config
from hiera_video.data.clip_frames import crops_of_clips, record_frame_range
from hiera_video.data.loading.map_videos import map_videos
from hiera_video.data.loading.quarantine import OnOpen, QuarantinePolicy
from hiera_video.data.manifest.record import Record
from hiera_video.data.sampling import FrameRange, clip_span, frame_range_of, test_clips
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.errors import ConfigError
from hiera_video.eval.forward import check_logits, forward_logits
from hiera_video.runtime.cuda_graphs import GraphedForward
from hiera_video.runtime.device_feed import DeviceFeed, HostCopy, one_behind
from hiera_video.video import open_video
from hiera_video.video.reader import Frames, VideoReader
from hiera_video.workflows.load_run import (
    LoadedRun,
    as_record,
    class_probabilities,
    name_top_classes,
    require_classes,
    top_classes,
)

MIN_SECONDS = 0.001
"""Shortest window and step: no camera is faster."""
FRAME_SECONDS = 0.04
"""Shortest window and step of files with fewer frames than 25 a second; of others, a frame."""
EPSILON = 1e-6
"""Tolerance, in seconds, when times of frames are compared."""


@dataclass(frozen=True, kw_only=True)
class SegmentPrediction:
    """The most likely classes of a segment of a video."""

    start_seconds: float
    """Seconds since the first frame of the video."""
    end_seconds: float
    seen_seconds: tuple[float, float]
    """Start of the first and end of the last frame that the model saw: a window longer than a clip
    is seen in its middle, as in a test."""
    top_classes: tuple[tuple[str, float], ...]
    """(label, probability), most likely first."""


def window_starts(duration: float, window: float, step: float) -> list[float]:
    """Return the start times of the windows along a video.

    They are `step` apart, as long as a whole window fits. If more than a tenth of a step remains,
    another window ends with the video.

    >>> window_starts(10, 4, 4)
    [0, 4, 6]
    """
    count = max(int((duration - window) / step + 1e-9) + 1, 1)
    starts = [index * step for index in range(count)]
    if duration - (starts[-1] + window) > 0.1 * step:
        starts.append(duration - window)
    return starts


@torch.inference_mode()
def predict_windows(
    run: LoadedRun,
    video: str | Path | Record,
    *,
    window: float | None = None,
    step: float | None = None,
    topk: int = 5,
) -> Iterator[SegmentPrediction]:
    """Predict each segment of a video.

    A segment is one clip, sampled and cropped as in the run's test.

    Args:
        run: A run from `load`.
        video: Video file, folder of frames if the run was trained on those, or record of a list.
        window: Length of a segment in seconds; by default the length of the model's clip.
        step: Seconds from the start of a segment to the next; by default `window`.
        topk: Number of classes.

    Yields:
        A prediction for each segment, in order.

    Raises:
        DecodeError: The video cannot be read.
        ConfigError: `window` or `step` is not positive and finite; or `window` is not given and the
            run samples segments, whose clips have no fixed length.
    """
    for scores in window_scores(run, video, window=window, step=step):
        yield SegmentPrediction(
            start_seconds=scores.start_seconds,
            end_seconds=scores.end_seconds,
            seen_seconds=scores.seen_seconds,
            top_classes=name_top_classes(run, scores.probabilities, topk),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class WindowScores:
    """The probabilities of all classes in a window of a video."""

    start_seconds: float
    """Seconds since the first frame of the video."""
    end_seconds: float
    seen_seconds: tuple[float, float]
    """As in `SegmentPrediction`."""
    zero_seconds: float
    """Time of the video's first frame on the file's clock, which lists use."""
    probabilities: Tensor
    """[K], on the CPU."""


@torch.inference_mode()
def window_scores(
    run: LoadedRun,
    video: str | Path | Record,
    *,
    window: float | None = None,
    step: float | None = None,
    windows_per_step: float = 1,
    at_once: int = 1,
) -> Iterator[WindowScores]:
    """Compute the probabilities of all classes in each window of a video.

    Args:
        run: A run from `load`.
        video: As for `predict_windows`.
        window: Length of a window in seconds; by default the length of the model's clip.
        step: Seconds from the start of a window to the next; by default `windows_per_step` windows.
        windows_per_step: The default of `step`, in windows.
        at_once: Windows that are decoded together, each frame once; memory grows with it.

    Yields:
        The scores of each window, in order.

    Raises:
        DecodeError: The video cannot be read.
        ConfigError: As for `predict_windows`.
    """
    require_classes(run)
    device, precision = next(run.model.parameters()).device, run.config.test.precision
    reader = _SegmentReader(
        run.config,
        run.transform,
        as_record(video),
        window,
        step,
        windows_per_step=windows_per_step,
        at_once=at_once,
    )
    feed = DeviceFeed(_segments(reader, run.config), device, Segment.parts)

    def queue() -> Iterator[tuple[Segment, HostCopy]]:
        for ((segment, transfer),) in feed:
            (views,) = transfer()
            yield segment, feed.link.fetch(forward_logits(run.model, views, precision))

    with closing(feed):
        # a GPU computes a segment while the next one is decoded
        for segment, copy in one_behind(queue(), lag=feed.reads_ahead):
            logits = copy.result()
            check_logits(logits, precision)
            yield WindowScores(
                start_seconds=segment.start_seconds,
                end_seconds=segment.end_seconds,
                seen_seconds=segment.seen_seconds,
                zero_seconds=segment.zero_seconds,
                probabilities=class_probabilities(run, logits),
            )


@dataclass(frozen=True, eq=False)
class Segment:
    """A segment of a video and the views of its clip."""

    start_seconds: float
    end_seconds: float
    seen_seconds: tuple[float, float]
    zero_seconds: float
    """As in `WindowScores`."""
    views: Tensor
    """[crops, 3, T, S, S], normalised."""

    def parts(self) -> list[Tensor]:
        """Return what the device gets."""
        return [self.views]


def _segments(reader: _SegmentReader, config: Config) -> Iterator[list[Segment]]:
    """Decode the segments in a worker, which is killed if one takes over the deadline."""
    policy = QuarantinePolicy(deadline_seconds=config.data.deadline_seconds)
    groups: Any = map_videos(reader, count(), workers=1, quarantine=policy)
    with closing(groups):
        for group in takewhile(lambda group: group is not None, groups):
            for segment in group:
                yield [segment]


class _WindowPlan(NamedTuple):
    """The windows of a record, in seconds."""

    first_seconds: float
    """Time of the record's first frame on the file's clock."""
    duration: float
    window: float
    starts: list[float]
    """Start of each window after the first frame."""


class _SegmentReader:
    """Decodes groups of consecutive segments of a video, for `_segments`."""

    def __init__(
        self,
        config: Config,
        transform: EvalTransform,
        record: Record,
        window: float | None,
        step: float | None,
        *,
        windows_per_step: float,
        at_once: int,
    ) -> None:
        self._config, self._transform, self._record = config, transform, record
        self._window, self._step = window, step
        self._windows_per_step, self._at_once = windows_per_step, at_once
        self._video: VideoReader | None = None

    def __call__(self, group: int, on_open: OnOpen) -> list[Segment] | None:
        """Return the segments of group number `group`, without those that contain no frame.

        After the last group, the result is None.
        """
        on_open(self._record.path)
        if self._video is None:
            self._video = open_video(self._record.source, self._config.data.backend)
            self._plan = self._make_plan(self._video)
        video, clip, plan = self._video, self._config.clip, self._plan
        times, fps, zero, first = video.times, video.fps, video.times[0], plan.first_seconds
        starts = plan.starts[group * self._at_once : (group + 1) * self._at_once]
        if not starts:
            return None
        skipped = first - zero  # before the record's segment
        spans, clips = list[tuple[float, float]](), list[list[int]]()
        for start in starts:
            stop = min(start + plan.window, plan.duration)
            segment = frame_range_of(times, fps, first + start, first + stop)
            if segment.num_frames < 1:  # a gap in a video of variable frame rate
                continue
            (indices,) = test_clips(segment, clip, 1)
            clips.append([segment.first + index for index in indices])
            spans.append((skipped + start, skipped + stop))
        return [
            Segment(
                *span, (times[chosen[0]] - zero, times[chosen[-1]] - zero + 1 / fps), zero, views
            )
            for span, chosen, views in zip(spans, clips, self._views(video, clips))
        ]

    def _make_plan(self, video: VideoReader) -> _WindowPlan:
        """Return the windows of the video; made once, as a film has thousands."""
        times, fps = video.times, video.fps
        window, step = self._check_window(fps)
        whole = record_frame_range(video, self._record)
        first, last = times[whole.first], times[whole.first + whole.num_frames - 1]
        duration = last - first + 1 / fps
        return _WindowPlan(first, duration, window, window_starts(duration, window, step))

    def _views(self, video: VideoReader, clips: list[list[int]]) -> list[Tensor]:
        if len(clips) < 2:
            return [self._transform(video.frames(chosen)) for chosen in clips]
        crops = crops_of_clips(video, clips, self._transform)
        return list(crops.stack().chunk(len(clips)))

    def _check_window(self, fps: float) -> tuple[float, float]:
        window, clip = self._window, self._config.clip
        if window is None:
            if clip.sampling == "segments":
                raise ConfigError(
                    "clip.sampling=segments: its clips have no fixed length; set --window SECONDS"
                )
            window = clip_span(clip, fps) / fps
        step = self._windows_per_step * window if self._step is None else self._step
        _check_lengths(window, step)
        shortest = min(1 / fps, FRAME_SECONDS)
        for name, value in (("window", self._window), ("step", self._step)):
            if value is not None and value < 0.9 * shortest:  # as it may be rounded
                raise ConfigError(
                    f"--{name} {value:g}: is shorter than a frame of {self._record.path}; must be "
                    f"{shortest:.3g} seconds or more"
                )
        return window, step

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_video": None}  # an open file cannot be pickled


def _check_lengths(window: float, step: float) -> None:
    for name, value in (("window", window), ("step", step)):
        if not 0 < value < math.inf:
            raise ConfigError(f"--{name} {value}: must be above 0 seconds and finite")
        if value < MIN_SECONDS:
            raise ConfigError(f"--{name} {value:g}: must be {MIN_SECONDS:g} seconds or more")


@torch.inference_mode()
def predict_live(
    run: LoadedRun,
    frames: Iterable[tuple[float, Frames]],
    *,
    window: float,
    step: float | None = None,
    topk: int = 5,
) -> Iterator[SegmentPrediction]:
    """Predict each segment of a live stream, as `predict_windows` does for a file.

    A segment is predicted as soon as a frame after its end arrives. If several segments have ended
    meanwhile, because the model is slower than the stream, only the newest is predicted. On a GPU,
    the forward pass is a CUDA graph.

    Args:
        run: A run from `load`.
        frames: (seconds since the start of the stream, uint8 frame [H, W, 3]), in order.
        window: Length of a segment in seconds.
        step: Seconds from the start of a segment to the next; by default `window`.
        topk: Number of classes.

    Yields:
        A prediction for each segment, in order.

    Raises:
        ConfigError: `window` or `step` is not positive and finite.
    """
    require_classes(run)
    step = window if step is None else step
    _check_lengths(window, step)
    device, precision = next(run.model.parameters()).device, run.config.test.precision
    forward = GraphedForward(partial(forward_logits, run.model, precision=precision))
    buffer: deque[tuple[float, Frames]] = deque()
    start = 0.0
    for time, frame in frames:
        if time < start + window - EPSILON:
            buffer.append((time, frame))
            continue
        while start + step + window - EPSILON <= time:  # a newer segment has ended too
            start += step
        while buffer and buffer[0][0] < start - EPSILON:
            buffer.popleft()
        segment = [item for item in buffer if item[0] < start + window - EPSILON]
        if len(segment) > 1:  # the frame rate takes two frames
            fps = round((len(segment) - 1) / (segment[-1][0] - segment[0][0]), 3)
            frame_range = FrameRange(first=0, num_frames=len(segment), fps=fps)
            (indices,) = test_clips(frame_range, run.config.clip, 1)
            clip = np.stack([segment[index][1] for index in indices])
            logits = forward(run.transform(clip).to(device))
            check_logits(logits, precision)
            yield SegmentPrediction(
                start_seconds=start,
                end_seconds=start + window,
                seen_seconds=(segment[indices[0]][0], segment[indices[-1]][0] + 1 / fps),
                top_classes=top_classes(run, logits, topk),
            )
        start += step
        buffer.append((time, frame))
