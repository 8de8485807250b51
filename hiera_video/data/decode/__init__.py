"""The only reader of video. `open_video(path)` gives `.info` and `.frames(indices)`; every failure is a `DecodeError`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hiera_video.data.decode.settings import FrameFolder
from hiera_video.errors import ConfigError

if TYPE_CHECKING:
    from hiera_video.data.decode.protocol import VideoReader

BACKENDS = ("pyav", "decord", "torchcodec", "frames")


def open_video(path: str | Path, backend: str | FrameFolder = "pyav") -> VideoReader:
    """Open the video at `path`. Close it after use, or open it in a `with` statement.

    >>> with open_video("a.mp4") as video:
    ...     video.info.num_frames, video.frames([0, 4, 8]).shape        # doctest: +SKIP
    (300, (3, 256, 340, 3))

    `backend`: `pyav`; `decord` or `torchcodec`, where installed; `frames` for a folder of pictures, or a `FrameFolder`
    that says how they are named. Raises `DecodeError`, whose `reason` is one of
    `hiera_video.data.decode.protocol.REASONS`, and `ConfigError` where a decoder is not installed.
    """
    if isinstance(backend, FrameFolder) or backend == "frames":
        from hiera_video.data.decode.folders import FolderReader

        return FolderReader(str(path), backend if isinstance(backend, FrameFolder) else FrameFolder())
    if backend not in BACKENDS:
        raise ConfigError(f"unknown decoder {backend!r}; choose one of {', '.join(BACKENDS)}")
    if backend != "pyav":
        from hiera_video.data.decode.borrowed import BORROWED, BorrowedReader

        return BorrowedReader(str(path), BORROWED[backend])
    from hiera_video.data.decode.pyav import PyAVReader

    return PyAVReader(str(path))
