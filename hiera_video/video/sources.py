"""Byte sources of the PyAV reader: a file, or a byte range of a local or remote tar shard.

A local shard is read through a window on the file. A remote video is downloaded with one range
request when it is opened. The tar header before the range is checked too, so that an index which
belongs to other shards is an error and never shows another video.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from av.container import InputContainer

from hiera_video.errors import DecodeError
from hiera_video.utils.remote_files import fetch, is_url
from hiera_video.video.container import check_file, open_container
from hiera_video.video.options import ShardVideo
from hiera_video.video.packet_index import Stamp
from hiera_video.video.reader import Limits, unreadable

TAR_BLOCK = 512


class ByteSource(Protocol):
    """Access to the bytes of one video."""

    @property
    def path(self) -> str:
        """Name of the video in messages."""

    def check(self, limits: Limits) -> None:
        """Raise `DecodeError` if there is nothing to open."""

    def open(self, limits: Limits) -> AbstractContextManager[InputContainer]:
        """Open the container."""

    def stamp(self) -> Stamp | None:
        """Return a pair that changes with the content; None if the file does not exist."""

    def read(self, count: int, offset: int = 0) -> tuple[bytes, int]:
        """Return `count` bytes from `offset` on, or as many as there are, and the size in bytes."""


def byte_source(video: str | ShardVideo) -> ByteSource:
    """Return the source for a path, a name `shard.tar!member`, or a video in a shard."""
    if isinstance(video, str):
        found = _find_in_shard(video)
        return LocalFile(video) if found is None else LocalShardVideo(found)
    return RemoteShardVideo(video) if is_url(video.shard) else LocalShardVideo(video)


def _find_in_shard(path: str) -> ShardVideo | None:
    """Locate `shards/train-000000.tar!name.mp4`; return None for a plain path."""
    shard, mark, member = path.rpartition("!")
    if not mark or not shard.endswith(".tar") or os.path.lexists(path) or not os.path.isfile(shard):  # noqa: PTH113
        return None
    try:
        with tarfile.open(shard, "r:") as tar:  # searches header by header; records have the offset
            info = next((info for info in tar if info.name == member), None)
    except (tarfile.TarError, OSError) as error:
        message = f"its shard is not a readable tar file ({error})"
        raise unreadable(path, "container", message) from error
    if info is None:
        raise unreadable(path, "missing", f"{shard} does not contain {member}")
    return ShardVideo(shard=shard, member=member, offset=info.offset_data, size=info.size)


class LocalFile:
    """A video file on this machine."""

    def __init__(self, path: str) -> None:
        self.path = path

    def check(self, limits: Limits) -> None:
        check_file(self.path)

    def stamp(self) -> Stamp | None:
        return _file_stamp(self.path)

    def open(self, limits: Limits) -> AbstractContextManager[InputContainer]:
        # `file:` keeps FFmpeg from reading a name such as `concat:a|b` as a protocol
        return open_container("file:" + os.path.abspath(self.path), limits)  # noqa: PTH100

    def read(self, count: int, offset: int = 0) -> tuple[bytes, int]:
        with open(self.path, "rb") as file:  # noqa: PTH123 (a hot path)
            file.seek(offset)
            return file.read(count), file.seek(0, os.SEEK_END)


class LocalShardVideo:
    """A video in a tar shard on this machine."""

    def __init__(self, video: ShardVideo) -> None:
        self.path = video.path
        self._video = video

    def check(self, limits: Limits) -> None:
        video = self._video
        try:
            check_file(video.shard)
        except DecodeError as error:
            message = f"its shard cannot be read ({error})"
            raise unreadable(self.path, error.reason, message) from error
        with open(video.shard, "rb") as file:  # noqa: PTH123 (a hot path)
            size = file.seek(0, os.SEEK_END)
            if video.offset + video.size > size:
                raise _truncated_shard(video, size)
            file.seek(video.offset - TAR_BLOCK)
            _check_header(video, file.read(TAR_BLOCK))

    def stamp(self) -> Stamp | None:
        return _file_stamp(self._video.shard)

    @contextmanager
    def open(self, limits: Limits) -> Iterator[InputContainer]:
        with FileSlice(self._video) as file, open_container(file, limits) as container:
            yield container

    def read(self, count: int, offset: int = 0) -> tuple[bytes, int]:
        with FileSlice(self._video) as file:
            file.seek(offset)
            return file.read(count), self._video.size


class RemoteShardVideo:
    """A video in a remote tar shard, downloaded into memory by `check`."""

    def __init__(self, video: ShardVideo) -> None:
        self.path = video.path
        self._video = video
        self._content = b""

    def check(self, limits: Limits) -> None:
        video = self._video
        if video.size > limits.max_bytes:
            raise unreadable(
                self.path,
                "too_large",
                f"{video.size / 2**20:.0f} MiB to download are over the limit of "
                f"{limits.max_bytes / 2**20:.0f} MiB; download the shard",
            )
        start = video.offset - TAR_BLOCK
        try:
            content = fetch(video.shard, start, video.offset + video.size)
        except FileNotFoundError as error:
            message = f"its shard cannot be read ({video.shard}: no such file)"
            raise unreadable(self.path, "missing", message) from error
        except PermissionError as error:
            message = f"access to its shard was denied ({error})"
            raise unreadable(self.path, "permission", message) from error
        except OSError as error:
            message = f"its storage does not respond ({error})"
            raise unreadable(self.path, "unreachable", message) from error
        if len(content) < TAR_BLOCK + video.size:
            raise _truncated_shard(video, start + len(content))
        _check_header(video, content[:TAR_BLOCK])
        self._content = content[TAR_BLOCK:]

    def stamp(self) -> Stamp | None:
        return self._video.size, self._video.offset  # known without a request

    @contextmanager
    def open(self, limits: Limits) -> Iterator[InputContainer]:
        file = io.BytesIO(self._content)
        file.name = self._video.member  # FFmpeg looks at its suffix
        with open_container(file, limits) as container:
            yield container

    def read(self, count: int, offset: int = 0) -> tuple[bytes, int]:
        return self._content[offset : offset + count], len(self._content)


class FileSlice(io.RawIOBase):
    """The bytes of a shard's video as a seekable file for FFmpeg."""

    def __init__(self, video: ShardVideo) -> None:
        self.name = video.member  # FFmpeg looks at its suffix
        self._offset, self._size, self._position = video.offset, video.size, 0
        self._file = os.open(video.shard, os.O_RDONLY | os.O_CLOEXEC)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"seek to {start + offset}, before the video's first byte")
        self._position = start + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        left = max(self._size - self._position, 0)
        count = left if size < 0 else min(size, left)
        content = os.pread(self._file, count, self._offset + self._position)
        self._position += len(content)
        return content

    def close(self) -> None:
        if not self.closed:
            os.close(self._file)
        super().close()


def _file_stamp(path: str) -> Stamp | None:
    try:
        status = os.stat(path)  # noqa: PTH116 (a hot path)
    except (OSError, ValueError):
        return None  # opening it will report why
    return status.st_size, status.st_mtime_ns


def _truncated_shard(video: ShardVideo, size: int) -> DecodeError:
    return unreadable(
        video.path,
        "truncated",
        f"its shard has {max(size, 0)} bytes, and the video lies at {video.offset} to "
        f"{video.offset + video.size}; download the shard again",
    )


def _check_header(video: ShardVideo, header: bytes) -> None:
    """Raise `DecodeError` unless the tar header has the video's name and size."""
    name, size = header[:100].rstrip(b"\0").decode("utf-8", "replace"), header[124:135]
    if name != video.member or size != b"%011o" % video.size:
        raise unreadable(
            video.path,
            "container",
            f"not at byte {video.offset} of its shard, as the index says; index and shards do not "
            "belong together, write them again",
        )
    if video.size == 0:
        message = "empty file (0 bytes); download or create it again, and the shards"
        raise unreadable(video.path, "empty", message)
