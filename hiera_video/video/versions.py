"""Versions of the decoding libraries."""

from __future__ import annotations

import av


def pyav_version() -> str:
    """Return the version of PyAV and of the FFmpeg that it is built with."""
    return f"{av.__version__} with FFmpeg {av.ffmpeg_version_info}"
