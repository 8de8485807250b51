"""Live frames from a camera (Linux, video4linux2)."""

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
    """Yield live frames until the camera stops.

    Args:
        device: Path of the camera, such as `/dev/video0`.

    Yields:
        Seconds since the first frame, and the frame: uint8 [H, W, 3], RGB.

    Raises:
        ConfigError: `device` is not a camera or cannot be read.
    """
    try:
        mode = os.stat(device).st_mode  # noqa: PTH116 (nothing to resolve)
    except OSError as error:
        found = ", ".join(sorted(map(str, Path("/dev").glob("video*")))) or "none"
        raise ConfigError(
            f"--webcam {device}: no such camera ({error.strerror}); available: {found}"
        ) from error
    if not stat.S_ISCHR(mode):
        raise ConfigError(f"--webcam {device}: not a camera; pass a file or folder as PATH instead")
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
