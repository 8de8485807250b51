"""Live pictures of a camera (Linux, video4linux2): the one place that opens a device; files have `opening`'s guard."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av

from hiera_video.errors import ConfigError
from hiera_video.video.reader import Frames


def camera_frames(device: str) -> Iterator[tuple[float, Frames]]:
    """(seconds since the first frame, uint8 [H, W, 3]) of each picture, for as long as the camera gives any.

    Raises `ConfigError` where `device` is no camera or cannot be read.
    """
    try:
        kind = os.stat(device).st_mode  # noqa: PTH116 (nothing to resolve)
    except OSError as error:
        found = ", ".join(sorted(map(str, Path("/dev").glob("video*")))) or "none"
        raise ConfigError(
            f"--webcam {device}: no such camera ({error.strerror}); there are: {found}"
        ) from error
    if not stat.S_ISCHR(kind):
        raise ConfigError(
            f"--webcam {device}: is not a camera; give a file or folder as PATH instead"
        )
    try:
        with av.open(device, format="v4l2") as container:
            first: float | None = None
            for frame in container.decode(video=0):
                first = frame.time if first is None else first
                picture: Any = frame.to_ndarray(format="rgb24")
                yield (frame.time or 0.0) - (first or 0.0), picture
    except (av.FFmpegError, OSError) as error:
        raise ConfigError(
            f"--webcam {device}: cannot be read as a camera ({error.strerror})"
        ) from error
