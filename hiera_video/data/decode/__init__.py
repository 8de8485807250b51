"""The only reader of video. `open_video(path)` gives `.info` and `.frames(indices)`; every failure is a `DecodeError`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hiera_video.errors import ConfigError

if TYPE_CHECKING:
    from hiera_video.data.decode.protocol import VideoReader

BACKENDS = ("pyav",)


def open_video(path: str | Path, backend: str = "pyav") -> VideoReader:
    """Open the video at `path`. Close it after use, or open it in a `with` statement.

    >>> with open_video("a.mp4") as video:
    ...     video.info.num_frames, video.frames([0, 4, 8]).shape        # doctest: +SKIP
    (300, (3, 256, 340, 3))

    Raises `DecodeError`, whose `reason` is one of `hiera_video.data.decode.protocol.REASONS`.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"unknown decoder {backend!r}; choose one of {', '.join(BACKENDS)}")
    from hiera_video.data.decode.pyav import PyAVReader

    return PyAVReader(str(path))
