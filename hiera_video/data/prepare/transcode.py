"""Re-encode one video: H.264 without sound, upright, with the original's frames and times."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from hiera_video.data.prepare.reencode_config import ReencodeConfig
from hiera_video.utils.atomic_files import publish, sync
from hiera_video.video.encode import TICKS_PER_SECOND, write_video
from hiera_video.video.pyav import PyAVReader
from hiera_video.video.reader import unreadable

BFRAMES = 3
ROUNDING_SECONDS = 0.00101
"""Largest deviation from a constant rate: containers that count milliseconds round each time."""


def transcode(
    video: PyAVReader, source: str, scratch: Path, target: Path, config: ReencodeConfig
) -> None:
    """Write a copy of a video, read it back and publish it with the original's modification time.

    Args:
        video: The open original.
        source: Its path.
        scratch: Temporary file on the disk of `target`.
        target: Where the copy appears once it is complete.
        config: Size, key frame interval and quality.

    Raises:
        DecodeError: The original cannot be read, or its copy has other frames or times.
        OSError: The copy cannot be written.
    """
    rate = constant_rate(video.times, video.fps)
    seconds = [time - video.times[0] for time in video.times]
    write_video(
        scratch,
        video.iter_frames(),
        fps=rate or video.fps,
        times=None if rate else seconds,
        size=output_size(video.info.height, video.info.width, config.short_side),
        gop=config.gop,
        bframes=BFRAMES,
        crf=config.crf,
    )
    tolerance = ROUNDING_SECONDS if rate else 1 / TICKS_PER_SECOND
    with PyAVReader(str(scratch)) as copy:
        if not same_times(copy.times, seconds, tolerance):
            raise unreadable(
                source,
                "codec",
                "its copy has other frames or times; convert it to a constant rate by other means",
            )
    date = Path(source).stat()
    os.utime(scratch, ns=(date.st_atime_ns, date.st_mtime_ns))
    target.parent.mkdir(parents=True, exist_ok=True)
    sync(scratch)
    publish(scratch, target)


def constant_rate(times: Sequence[float], fps: float) -> Fraction | None:
    """Return the frame rate, such as 30000/1001, that all times follow; None at a variable rate."""
    rate = Fraction(fps).limit_denominator(1001)
    if rate <= 0 or any(
        abs(time - times[0] - i / rate) > ROUNDING_SECONDS for i, time in enumerate(times)
    ):
        return None
    return rate


def same_times(found: Sequence[float], expected: Sequence[float], tolerance: float) -> bool:
    """Return True if two lists of times are equally long and differ by at most `tolerance`."""
    return len(found) == len(expected) and all(
        abs(a - b) <= tolerance for a, b in zip(found, expected)
    )


def output_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return the copy's height and width: even, as H.264 needs, and never enlarged.

    >>> output_size(1080, 1920, short_side=256)
    (256, 456)
    """
    scale = min(1.0, short_side / min(height, width))
    return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)
