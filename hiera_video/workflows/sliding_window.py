"""What is shown when: a run's answers along a video, one for each stretch of time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hiera_video.data.sampling import FrameRange, clip_span, frame_range_of, test_clips
from hiera_video.errors import ConfigError
from hiera_video.video import open_video
from hiera_video.video.reader import Frames
from hiera_video.workflows.load_run import LoadedRun, answers_for


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The likeliest classes of one stretch, the likeliest first."""

    start_seconds: float
    """Counted from the video's first frame."""
    end_seconds: float
    answers: tuple[tuple[str, float], ...]
    """(label, probability)."""


def window_starts(duration: float, window: float, step: float) -> list[float]:
    """Where the stretches start: every `step` seconds as long as a whole one fits, and one more that ends with the video
    where the last leaves more than a tenth of a step unseen.

    >>> window_starts(10, 4, 4)
    [0, 4, 6]
    """
    count = max(int((duration - window) / step + 1e-9) + 1, 1)
    starts = [place * step for place in range(count)]
    if duration - (starts[-1] + window) > 0.1 * step:
        starts.append(duration - window)
    return starts


@torch.inference_mode()
def predict_windows(
    run: LoadedRun,
    path: str | Path,
    *,
    window: float | None = None,
    step: float | None = None,
    topk: int = 5,
) -> Iterator[Answer]:
    """The `topk` likeliest classes of each `window` seconds of the video, `step` seconds apart (default: side by side).

    `window` is the clip's own length where not given, which segment sampling has not. Each stretch is seen as the test
    sees a video: the run's crops and frames, one clip. Raises `DecodeError` where the video cannot be read.
    """
    clip = run.config.clip
    with open_video(path, run.config.data.backend) as video:
        times, fps = video.times, video.fps
        if window is None:
            if clip.sampling == "segments":
                raise ConfigError(
                    "clip.sampling=segments spreads its frames over any length: say how long with --window"
                )
            window = clip_span(clip, fps) / fps
        for name, value in (("window", window), ("step", window if step is None else step)):
            if not 0 < value < math.inf:
                raise ConfigError(f"--{name} {value}: must be above 0 seconds, and finite")
        length = times[-1] - times[0] + 1 / fps
        for start in window_starts(length, window, window if step is None else step):
            part = frame_range_of(times, fps, times[0] + start, times[0] + start + window)
            if part.num_frames < 1:  # a gap in a video of variable rate
                continue
            frames = video.frames(_frames(part, run))
            answers = answers_for(run, run.transform(frames), topk)
            yield Answer(
                start_seconds=start, end_seconds=min(start + window, length), answers=answers
            )


@torch.inference_mode()
def predict_live(
    run: LoadedRun,
    frames: Iterable[tuple[float, Frames]],
    *,
    window: float,
    step: float | None = None,
    topk: int = 5,
) -> Iterator[Answer]:
    """The answers of `predict_windows` for frames that arrive one by one: (seconds, uint8 [H, W, 3]), from 0 on.

    A stretch is answered for as soon as a frame beyond its end is there. Stretches that ended while the model was busy
    with another are passed over, all but the newest: what is said is about now.
    """
    step = window if step is None else step
    seen: deque[tuple[float, Frames]] = deque()
    start, slack = 0.0, 1e-6
    for time, frame in frames:
        if time < start + window - slack:
            seen.append((time, frame))
            continue
        while start + step + window - slack <= time:  # newer ones have ended too
            start += step
        while seen and seen[0][0] < start - slack:
            seen.popleft()
        part = [item for item in seen if item[0] < start + window - slack]
        if len(part) > 1:  # a rate takes two
            fps = round((len(part) - 1) / (part[-1][0] - part[0][0]), 3)
            (indices,) = test_clips(
                FrameRange(first=0, num_frames=len(part), fps=fps), run.config.clip, 1
            )
            clip = np.stack([part[index][1] for index in indices])
            answers = answers_for(run, run.transform(clip), topk)
            yield Answer(start_seconds=start, end_seconds=start + window, answers=answers)
        start += step
        seen.append((time, frame))


def _frames(part: FrameRange, run: LoadedRun) -> list[int]:
    (indices,) = test_clips(part, run.config.clip, 1)
    return [part.first + index for index in indices]
