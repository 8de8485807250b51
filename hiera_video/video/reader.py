"""What every video reader offers, and the fixed words for what can be wrong with a video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from hiera_video.errors import DecodeError

Frames = npt.NDArray[np.uint8]
"""uint8 [T, H, W, 3], RGB, upright."""

REASONS = (
    "missing",  # no such file
    "not_a_file",  # a folder, a pipe, a device
    "permission",  # not readable by this user
    "unreachable",  # a remote storage that does not answer
    "empty",  # no bytes
    "container",  # no video file, a damaged header, or a format that is not allowed (playlists, scripts)
    "no_video",  # sound or pictures alone
    "codec",  # nothing here decodes it
    "too_large",  # over the limits on picture size or on memory
    "truncated",  # ends before its header says
    "corrupt",  # a wanted frame cannot be decoded without errors
    "no_frames",  # a video stream without a picture
    "empty_window",  # the record's start and end leave no frame
    "hung",  # kept a decoder busy beyond the deadline, and is passed over since
    "crashed",  # ended a worker process twice, and is passed over since
    "backend",  # the chosen decoder gets this file wrong; another reads it
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a file may ask for before anything is decoded; a 199 kB file can claim gigabytes."""

    max_pixels: int = 8192 * 4320
    """Of one frame."""
    max_bytes: int = 1 << 30
    """Of the RGB frames of one call of `frames`."""


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What is known of a video without decoding more than one frame."""

    num_frames: int
    """Frames that are shown; what an edit list cuts away is not counted."""
    fps: float
    """Average rate."""
    width: int
    """Pixels, upright."""
    height: int
    """Pixels, upright."""
    rotation: int
    """Degrees counter-clockwise (0, 90, 180, 270) that stored pictures are turned by; `frames` has done it."""
    duration_seconds: float
    """From the first frame to the end of the last."""
    codec: str
    """FFmpeg's name: h264, hevc, vp9 …"""


class VideoReader(Protocol):
    """An open video. Frame i is the i-th in the order of presentation, from 0."""

    @property
    def info(self) -> VideoInfo: ...

    @property
    def fps(self) -> float:
        """Average rate; cheaper than `info`."""

    @property
    def times(self) -> Sequence[float]:
        """Seconds of each frame on the file's clock, ascending; as many as there are frames."""

    def frames(self, indices: Sequence[int]) -> Frames:
        """The frames at `indices`, in that order, repeated where they repeat. `DecodeError` unless all are intact."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Closeable:
    """What has a `close` and is used in a `with` statement."""

    def close(self) -> None:
        """Let go of what is open; harmless where nothing is."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def close_on_error(self) -> Iterator[None]:
        """Around what may fail while an object is made: nobody else can close it then."""
        try:
            yield
        except BaseException:
            self.close()
            raise


def unreadable(path: str, reason: str, words: str) -> DecodeError:
    """The error for a video that cannot be used; `reason` must be one of `REASONS`."""
    assert reason in REASONS, reason
    return DecodeError(f"{path}: {words}", reason=reason)
