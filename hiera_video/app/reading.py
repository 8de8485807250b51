"""Reading an upload in a worker process, which is killed if its decoder takes too long."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hiera_video.app.uploads import AppLimits
from hiera_video.data.loading.map_videos import map_videos
from hiera_video.data.loading.quarantine import OnOpen, QuarantinePolicy
from hiera_video.data.sampling import (
    ClipConfig,
    FrameRange,
    clip_span,
    frame_range_of,
    test_clips,
)
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.errors import DecodeError
from hiera_video.video import open_video
from hiera_video.video.reader import VideoReader, unreadable
from hiera_video.workflows.sliding_window import window_starts

MAX_WINDOWS = 16
"""Windows of a video; in a longer one they are spread evenly."""
SHORT_SIDE = 96
"""Short side of the pictures of windows, in pixels."""


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """How a model's clips are sampled and transformed."""

    clip: ClipConfig
    transform: EvalTransform


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowClip:
    """A window of a video: the views that the model gets, and a picture."""

    start_seconds: float
    """Seconds since the first frame of the video."""
    end_seconds: float
    views: Tensor
    """[crops, 3, T, S, S], normalised."""
    picture: NDArray[np.uint8]
    """[h, w, 3], the middle frame."""


@dataclass(frozen=True, kw_only=True, eq=False)
class UploadedVideo:
    """What the page needs of a video."""

    width: int
    height: int
    fps: float
    duration_seconds: float
    windows: tuple[WindowClip, ...]
    """In order of time; together they cover the video, or are spread over it evenly."""
    others: Mapping[str, Tensor]
    """Views of the middle clip for other models, by name: [crops, 3, T, S, S]."""

    def keep_views(self, place: int) -> UploadedVideo:
        """Return the video with the views of one window alone, to be kept for later questions."""
        windows = [
            window if index == place else replace(window, views=torch.empty(0))
            for index, window in enumerate(self.windows)
        ]
        # copies, which do not hold the memory of all views
        windows[place] = replace(windows[place], views=windows[place].views.clone())
        others = {name: views.clone() for name, views in self.others.items()}
        return replace(self, windows=tuple(windows), others=others)


class UploadReader:
    """Reads one video for the page; workers call it.

    Args:
        source: Clips of the classifier.
        others: Clips of other models, by name.
        limits: Limits of the page.
    """

    def __init__(
        self, source: ClipSource, others: Mapping[str, ClipSource], limits: AppLimits
    ) -> None:
        self._source, self._others, self._limits = source, dict(others), limits

    def __call__(self, path: str, on_open: OnOpen) -> UploadedVideo | DecodeError:
        """Return the video, or why it cannot be shown."""
        torch.set_num_threads(1)  # resizing rounds differently with another number
        on_open(path)
        try:
            with open_video(path) as video:
                return self._read(path, video)
        except DecodeError as error:
            return error.with_traceback(None)

    def _read(self, path: str, video: VideoReader) -> UploadedVideo:
        times, fps = video.times, video.fps
        duration = times[-1] - times[0] + 1 / fps
        if duration > self._limits.max_seconds:
            raise unreadable(
                path,
                "too_large",
                f"is {duration:.1f} s long, over the limit of {self._limits.max_seconds:g} s; cut "
                "it, or raise --max-seconds",
            )
        info = video.info
        whole = FrameRange(first=0, num_frames=len(times), fps=fps)
        others = {
            name: source.transform(video.frames(test_clips(whole, source.clip, 1)[0]))
            for name, source in self._others.items()
        }
        return UploadedVideo(
            width=info.width,
            height=info.height,
            fps=fps,
            duration_seconds=duration,
            windows=tuple(self._windows(video, duration)),
            others=others,
        )

    def _windows(self, video: VideoReader, duration: float) -> list[WindowClip]:
        times, fps, found = video.times, video.fps, []
        for start, end in spread_windows(duration, window_length(self._source.clip, fps, duration)):
            part = frame_range_of(times, fps, times[0] + start, times[0] + end)
            if part.num_frames < 1:  # a gap in a video of variable frame rate
                continue
            (indices,) = test_clips(part, self._source.clip, 1)
            frames = video.frames([part.first + index for index in indices])
            found.append(
                WindowClip(
                    start_seconds=start,
                    end_seconds=end,
                    views=self._source.transform(frames),
                    picture=thumbnail(frames[len(frames) // 2]),
                )
            )
        return found


def window_length(clip: ClipConfig, fps: float, duration: float) -> float:
    """Return the seconds of a window: of the model's clip, or the whole video for segments."""
    return duration if clip.sampling == "segments" else clip_span(clip, fps) / fps


def spread_windows(duration: float, window: float) -> list[tuple[float, float]]:
    """Return start and end of each window: side by side, or at most `MAX_WINDOWS` spread evenly.

    >>> spread_windows(5, 2)
    [(0, 2), (2, 4), (3, 5)]
    """
    step = max(window, (duration - window) / (MAX_WINDOWS - 1))
    starts = window_starts(duration, window, step)[:MAX_WINDOWS]
    return [(start, min(start + window, duration)) for start in starts]


def thumbnail(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a frame [H, W, 3] with its short side scaled down to `SHORT_SIDE`."""
    height, width = frame.shape[:2]
    scale = min(SHORT_SIDE / min(height, width), 1.0)
    size = (max(round(height * scale), 1), max(round(width * scale), 1))
    pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1).float()
    small = F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
    return small.round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


def read_upload(reader: UploadReader, path: Path, limits: AppLimits) -> UploadedVideo:
    """Read a video in a worker process.

    Raises:
        DecodeError: It cannot be read, is over a limit, or takes too long to decode; the message
            starts with its path.
    """
    policy = QuarantinePolicy(deadline_seconds=limits.read_seconds)
    results: Any = map_videos(reader, [str(path)], workers=1, quarantine=policy)
    with closing(results):
        (found,) = results
    if isinstance(found, DecodeError):
        raise found
    video: UploadedVideo = found
    return video
