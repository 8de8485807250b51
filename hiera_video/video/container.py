"""Opening a video file with PyAV safely: what may be opened, how large it may be, and how its failures are told."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from hiera_video.errors import DecodeError
from hiera_video.video.reader import Limits, unreadable

# Containers with times of their own. No playlists, scripts or picture sequences: those open other files.
FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,ogg,gif,asf,ivf"


@contextmanager
def decoding(path: str, reason: str, words: str) -> Iterator[None]:
    """The one place where a decoder's failures become ours."""
    try:
        yield
    except DecodeError:
        raise
    except (av.FFmpegError, OSError, ValueError, RuntimeError, MemoryError) as error:
        detail = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise unreadable(path, reason, f"{words} ({detail})") from error
    except (
        IndexError
    ) as error:  # what PyAV makes of a packet whose stream was not there at the start
        raise unreadable(
            path,
            reason,
            f"{words} (another stream begins in its middle; convert it, or cut it there)",
        ) from error


def check_file(path: str) -> None:
    try:
        status = os.stat(path)  # noqa: PTH116 (a hot path)
    except FileNotFoundError as error:
        raise unreadable(path, "missing", "no such file") from error
    except PermissionError as error:
        raise unreadable(
            path, "permission", "may not be read; check the permissions of its folders"
        ) from error
    except (OSError, ValueError) as error:
        raise unreadable(path, "not_a_file", f"is not a file ({error})") from error
    if not stat.S_ISREG(status.st_mode):  # reading from a pipe would wait for ever
        raise unreadable(path, "not_a_file", "is not a regular file")
    if status.st_size == 0:
        raise unreadable(path, "empty", "is empty (0 bytes); fetch or make it again")
    if not os.access(path, os.R_OK):
        raise unreadable(path, "permission", "may not be read; check its permissions")


def open_container(file: str | io.RawIOBase | io.BytesIO, limits: Limits) -> InputContainer:
    """`file`: a name, with FFmpeg's `file:` before it, or something to read and seek in."""
    options = {
        "protocol_whitelist": "file"
        if isinstance(file, str)
        else "none",  # nothing but the file itself is opened
        "format_whitelist": FORMATS,
        "max_pixels": str(limits.max_pixels),  # for the decoders that probing opens
    }
    return av.open(file, "r", options=options, metadata_errors="replace")


def video_stream(container: InputContainer, path: str) -> VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails):
            return stream
    raise unreadable(path, "no_video", "has no video stream")


def single_threaded(decoder: VideoCodecContext, limits: Limits) -> VideoCodecContext:
    decoder.thread_count = (
        1  # workers are the parallelism; FFmpeg's threads can deadlock when left early
    )
    decoder.options = {"max_pixels": str(limits.max_pixels)}
    return decoder


def check_size(path: str, width: int, height: int, limits: Limits) -> None:
    if width < 1 or height < 1:
        raise unreadable(path, "container", "does not say how large its pictures are")
    if width * height > limits.max_pixels:
        raise unreadable(
            path,
            "too_large",
            f"pictures of {width}x{height} are over the limit of {limits.max_pixels} pixels",
        )


def check_request(
    path: str, indices: Sequence[int], count: int, width: int, height: int, limits: Limits
) -> None:
    """`IndexError` for a frame that there is not, `DecodeError` for more of them than memory is meant for."""
    for index in indices:
        if not 0 <= index < count:
            raise IndexError(
                f"{path}: frame {index} was asked for, but there are {count}, 0 to {count - 1}"
            )
    needed = len(indices) * width * height * 3
    if needed > limits.max_bytes:
        raise unreadable(
            path,
            "too_large",
            f"{len(indices)} frames of {width}x{height} take {needed / 2**20:.0f} MiB, over the limit of "
            f"{limits.max_bytes / 2**20:.0f} MiB; make the video smaller",
        )


def rotation(frame: VideoFrame) -> int:
    """Degrees counter-clockwise that turn the stored picture upright: 0, 90, 180 or 270."""
    return round(frame.rotation / 90) * 90 % 360


def matroska_promise(head: bytes) -> int:
    """Bytes that a Matroska file's first ones say it has; 0 where they do not say."""
    start = (
        head.find(b"\x18\x53\x80\x67") + 4
    )  # the ID of Segment, the element that holds all others
    if start < 4 or start >= len(head) or head[start] == 0:
        return 0
    length = (
        9 - head[start].bit_length()
    )  # EBML: as many leading zero bits as bytes follow the first
    size = int.from_bytes(head[start : start + length], "big") & ((1 << 7 * length) - 1)
    if size == (1 << 7 * length) - 1:  # all ones: unknown, as live streams have it
        return 0
    return start + length + size
