"""Safe opening of video files with PyAV: allowed formats, size limits, error translation."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from hiera_video.errors import DecodeError
from hiera_video.utils.remote_files import is_url
from hiera_video.utils.text_files import count_of
from hiera_video.video.reader import Limits, unreadable

FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,ogg,gif,asf,ivf"
"""Containers that store frame times. Playlists, scripts and image sequences, which open other
files, are excluded."""

URL = "is a URL, and videos are read from disk; download it first"
MAX_BOXES = 32
"""Boxes of an MP4 file in which the first fragment is searched."""


@contextmanager
def decode_errors(path: str, reason: str, message: str) -> Iterator[None]:
    """Raise failures of PyAV within the block as `DecodeError` with this reason and message."""
    try:
        yield
    except DecodeError:
        raise
    except (av.FFmpegError, OSError, ValueError, RuntimeError, MemoryError) as error:
        detail = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise unreadable(path, reason, f"{message} ({detail})") from error
    except IndexError as error:  # raised by PyAV for a packet of a stream that begins later
        detail = "another stream begins in the middle; convert the file, or split it there"
        raise unreadable(path, reason, f"{message} ({detail})") from error


def check_file(path: str) -> None:
    """Raise `DecodeError` unless `path` is a readable, non-empty regular file."""
    try:
        status = os.stat(path)  # noqa: PTH116 (a hot path)
    except FileNotFoundError as error:
        raise unreadable(path, "missing", URL if is_url(path) else "no such file") from error
    except PermissionError as error:
        message = "permission denied; check the permissions of its folders"
        raise unreadable(path, "permission", message) from error
    except (OSError, ValueError) as error:
        raise unreadable(path, "not_a_file", f"not a file ({error})") from error
    if stat.S_ISDIR(status.st_mode):
        message = "a folder, not a file; data.decoder=frames reads folders of pictures"
        raise unreadable(path, "not_a_file", message)
    if not stat.S_ISREG(status.st_mode):  # reading from a pipe would block forever
        raise unreadable(path, "not_a_file", "not a regular file")
    if status.st_size == 0:
        raise unreadable(path, "empty", "empty file (0 bytes); download or create it again")
    if not os.access(path, os.R_OK):
        raise unreadable(path, "permission", "permission denied; check its permissions")


def open_container(file: str | io.RawIOBase | io.BytesIO, limits: Limits) -> InputContainer:
    """Open a container without access to any other file.

    Args:
        file: `file:` and a path, or a seekable binary file.
        limits: Limits for the decoders that FFmpeg opens to probe the streams.
    """
    options = {
        "protocol_whitelist": "file" if isinstance(file, str) else "none",
        "format_whitelist": FORMATS,
        "max_pixels": str(limits.max_pixels),
        "max_streams": str(limits.max_streams + 1),  # one more, so that the excess shows
    }
    return av.open(file, "r", options=options, metadata_errors="replace")


def video_stream(container: InputContainer, path: str) -> VideoStream:
    """Return the first video stream that is not a cover picture or thumbnail."""
    for stream in container.streams.video:
        if not stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails):
            return stream
    raise unreadable(path, "no_video", "has no video stream")


def single_threaded(decoder: VideoCodecContext, limits: Limits) -> VideoCodecContext:
    """Configure `decoder` for one thread and the size limit, and return it."""
    # workers provide the parallelism, and FFmpeg's threads can deadlock when decoding stops early
    decoder.thread_count = 1
    decoder.options = {"max_pixels": str(limits.max_pixels)}
    return decoder


def check_size(path: str, width: int, height: int, limits: Limits) -> None:
    """Raise `DecodeError` if the frame size is missing or over the limit."""
    if width < 1 or height < 1:
        raise unreadable(path, "container", "has no frame size in its header")
    if width * height > limits.max_pixels:
        raise unreadable(
            path,
            "too_large",
            f"frames of {width}x{height} are over the limit of {limits.max_pixels} pixels",
        )


def check_request(
    path: str, indices: Sequence[int], count: int, width: int, height: int, limits: Limits
) -> None:
    """Check frame numbers against the video's `count` frames and the memory limit.

    Raises:
        IndexError: A frame does not exist.
        DecodeError: The frames take more memory than `limits.max_bytes`.
    """
    for index in indices:
        if not 0 <= index < count:
            raise IndexError(
                f"{path}: frame {index} does not exist; the video has {count_of(count, 'frame')}, "
                f"0 to {count - 1}"
            )
    size = len(indices) * width * height * 3
    if size > limits.max_bytes:
        raise unreadable(
            path,
            "too_large",
            f"{len(indices)} frames of {width}x{height} take {size / 2**20:.0f} MiB, over the "
            f"limit of {limits.max_bytes / 2**20:.0f} MiB; make the video smaller",
        )


def matroska_size(head: bytes) -> int:
    """Return the file size that the first bytes of a Matroska file promise; 0 if they do not."""
    # the ID of Segment, the element that contains all others
    start = head.find(b"\x18\x53\x80\x67") + 4
    if start < 4 or start >= len(head) or head[start] == 0:
        return 0
    # EBML: the number of leading zero bits is the number of bytes that follow the first
    length = 9 - head[start].bit_length()
    unknown = (1 << 7 * length) - 1  # all ones, as in live streams
    size = int.from_bytes(head[start : start + length], "big") & unknown
    return 0 if size == unknown else start + length + size


def riff_is_complete(read: Callable[[int, int], tuple[bytes, int]]) -> bool:
    """Return True if an AVI file is as long as its RIFF headers say.

    Args:
        read: Returns a number of bytes from an offset on, and the size of the file.
    """
    place = 0
    while True:
        header, size = read(8, place)
        if len(header) < 8 or header[:4] != b"RIFF":
            return 0 < place <= size + 1  # the last chunk may lack its padding
        length = int.from_bytes(header[4:], "little")
        place += 8 + length + length % 2


def is_fragmented(read: Callable[[int, int], tuple[bytes, int]]) -> bool:
    """Return True if an MP4 file has fragments (`moof` boxes); `read` is as above."""
    place = 0
    for _ in range(MAX_BOXES):
        header, _ = read(16, place)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if kind == b"moof":
            return True
        if length == 1:  # 64 bits
            length = int.from_bytes(header[8:16], "big")
        if length < 8:
            break
        place += length
    return False


def raw_stream_codec(head: bytes) -> str | None:
    """Return the codec of a raw stream, a file without a container, by its first bytes.

    >>> raw_stream_codec(bytes.fromhex("00000001 67640015"))
    'H.264'
    """
    start = head.find(b"\0\0\1")
    if start not in (0, 1) or len(head) < start + 5:
        return None
    first, second = head[start + 3], head[start + 4]
    if first in (0xB0, 0xB5, 0x20):  # visual object sequence, visual object, its layer
        return "MPEG-4"
    if first == 0xB3:  # sequence header
        return "MPEG-1 or MPEG-2"
    if first >> 1 in (32, 33, 35, 39) and second == 1:  # parameter sets, delimiter, message
        return "HEVC"
    # slices, messages, parameter sets, delimiter
    return "H.264" if first < 0x80 and first & 31 in (1, 5, 6, 7, 8, 9) else None
