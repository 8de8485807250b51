"""Interface of all video readers, and the reasons for which a video is unreadable."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock
from types import TracebackType
from typing import Any, Protocol, Self, SupportsIndex

import numpy as np
import numpy.typing as npt

from hiera_video.errors import ConfigError, DecodeError
from hiera_video.video.arguments import frame_numbers

Frames = npt.NDArray[np.uint8]
"""uint8 [T, H, W, 3], RGB, upright."""

REASONS = (
    "missing",  # no such file
    "not_a_file",  # a folder, a pipe, a device
    "permission",  # not readable by this user
    "unreachable",  # the remote storage does not respond
    "empty",  # no bytes
    "container",  # not a video file, a damaged header, or a forbidden format (playlists, scripts)
    "no_video",  # only sound or pictures
    "codec",  # no decoder for it is available
    "encrypted",  # packets are encrypted, and there is no key
    "too_large",  # over the limits on frame size or memory
    "truncated",  # ends before its header says
    "corrupt",  # a requested frame cannot be decoded without errors
    "no_frames",  # a video stream without a frame
    "empty_window",  # no frame lies between the record's start and end
    "hung",  # a decoder exceeded the deadline; the video is skipped from then on
    "crashed",  # a decoder crashed its worker process twice; the video is skipped from then on
    "backend",  # the chosen decoder gets this file wrong; another one reads it
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits checked before anything is decoded: a 199 kB file can claim gigabytes."""

    max_pixels: int = 8192 * 4320
    """Pixels of one frame."""
    max_bytes: int = 1 << 30
    """Bytes of the RGB frames that one call of `frames` returns."""
    max_streams: int = 100
    """Streams of one file; FFmpeg opens a decoder for each."""
    max_packets: int = 1 << 22
    """Packets of one stream: 38 hours at 30 frames a second."""


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """Properties of a video; at most one frame is decoded for them."""

    num_frames: int
    """Number of frames shown; frames that an edit list removes are not counted."""
    fps: float
    """Average frame rate."""
    width: int
    """Width in pixels, after rotation."""
    height: int
    """Height in pixels, after rotation."""
    rotation: int
    """Counter-clockwise rotation of the stored frames in degrees (0, 90, 180 or 270), which
    `VideoReader.frames` applies."""
    mirrored: bool = False
    """True if `VideoReader.frames` exchanges left and right after the rotation."""
    duration_seconds: float
    """Seconds from the start of the first frame to the end of the last."""
    codec: str
    """FFmpeg's name of the codec: h264, hevc, vp9 …"""


class VideoReader(Protocol):
    """An open video with exact random access.

    Frame `i` is the `i`-th frame in presentation order, counted from 0: the same picture whichever
    other frames are requested and in whatever order. Threads may share a reader; it reads for one
    of them at a time.
    """

    @property
    def info(self) -> VideoInfo:
        """Properties of the video.

        Raises:
            DecodeError: The first frame cannot be decoded.
        """

    @property
    def fps(self) -> float:
        """Average frame rate; unlike `info` this decodes no frame."""

    @property
    def times(self) -> Sequence[float]:
        """Presentation time of each frame in seconds, ascending; one entry per frame."""

    def frames(self, indices: Iterable[SupportsIndex]) -> Frames:
        """Decode the frames at `indices`.

        Args:
            indices: Frame numbers from 0 in any order, which may repeat: a list, range, array,
                tensor or other iterable.

        Returns:
            Frames in the order of `indices`: uint8 [T, H, W, 3], RGB, upright.

        Raises:
            IndexError: There is no frame with one of these numbers.
            ConfigError: `indices` are no integers, or the video is closed.
            DecodeError: One of the frames is damaged, or they exceed the memory limit. Frames are
                never substituted or left out.
        """

    def close(self) -> None:
        """Close the file; may be called more than once."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Closeable:
    """Base class that closes the object when its `with` block ends."""

    def close(self) -> None:
        """Release resources; may be called more than once."""

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
        """Close the object if the block fails; for constructors, whose callers cannot close it."""
        try:
            yield
        except BaseException:
            self.close()
            raise


class LockedReader(Closeable):
    """Base class of readers, which implements `VideoReader` for any number of threads.

    Two threads in one FFmpeg decoder end the process, so that threads take turns.

    Args:
        path: The video, for messages.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._info: VideoInfo | None = None
        self._is_closed = False
        self._lock = RLock()  # `_read_frames` may need `info`

    @property
    def info(self) -> VideoInfo:
        """Properties of the video; the first use decodes at most one frame."""
        if self._info is None:
            with self._turn():
                self._info = self._read_info()
        return self._info

    def frames(self, indices: Iterable[SupportsIndex]) -> Frames:
        """Decode the frames at `indices`; see `VideoReader.frames`."""
        numbers = frame_numbers(self._path, indices)
        with self._turn():
            return self._read_frames(numbers)

    def close(self) -> None:
        """Close the file, after the frames that another thread reads; may be called again."""
        with self._lock:
            self._is_closed = True
            self._release()

    @abstractmethod
    def _read_info(self) -> VideoInfo: ...

    @abstractmethod
    def _read_frames(self, indices: list[int]) -> Frames: ...

    def _release(self) -> None:
        """Release what `__init__` opened; may be called more than once."""

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with self._lock:
            if self._is_closed:
                raise ConfigError(
                    f"{self._path}: is closed; read it inside the `with` block, or open it again"
                )
            yield

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=RLock())


def unreadable(path: str, reason: str, message: str) -> DecodeError:
    """Return the error for an unreadable video; `reason` must be one of `REASONS`."""
    assert reason in REASONS, reason
    return DecodeError(f"{path}: {message}", reason=reason)
