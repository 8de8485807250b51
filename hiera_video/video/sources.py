"""Where a video's bytes come from: a file, or a stretch of a tar shard on this machine or elsewhere.

A stretch of a local shard is read through a window on the file; a remote one is fetched whole, in one request, when it
is opened. The tar header before the stretch is read too: an index that belongs to other shards is told, and never
another video shown.
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
    """What the reader needs of a file."""

    @property
    def path(self) -> str:
        """What messages call it."""

    def check(self, limits: Limits) -> None:
        """`DecodeError` where there is nothing to open."""

    def opened(self, limits: Limits) -> AbstractContextManager[InputContainer]: ...

    def stamp(self) -> Stamp | None:
        """What changes when the bytes do; None where there are none."""

    def head(self, count: int) -> tuple[bytes, int]:
        """The first `count` bytes, and how many there are in all."""


def byte_source(video: str | ShardVideo) -> ByteSource:
    if isinstance(video, str):
        found = _named_in_shard(video)
        return _File(video) if found is None else _Stretch(found)
    return _Fetched(video) if is_url(video.shard) else _Stretch(video)


def _named_in_shard(path: str) -> ShardVideo | None:
    """Where `shards/train-000000.tar!name.mp4`, as predictions call a video, lies; None where the path is a plain one."""
    shard, mark, member = path.rpartition("!")
    if not mark or not shard.endswith(".tar") or os.path.lexists(path) or not os.path.isfile(shard):  # noqa: PTH113
        return None
    try:
        with tarfile.open(
            shard, "r:"
        ) as tar:  # a search from header to header; records have the place
            facts = next((facts for facts in tar if facts.name == member), None)
    except (tarfile.TarError, OSError) as error:
        raise unreadable(
            path, "container", f"its shard is no tar file that can be read ({error})"
        ) from error
    if facts is None:
        raise unreadable(path, "missing", f"{shard} holds no {member}")
    return ShardVideo(shard=shard, member=member, offset=facts.offset_data, size=facts.size)


class _File:
    def __init__(self, path: str) -> None:
        self.path = path

    def check(self, limits: Limits) -> None:
        check_file(self.path)

    def stamp(self) -> Stamp | None:
        return _stamp_of(self.path)

    def opened(self, limits: Limits) -> AbstractContextManager[InputContainer]:
        # `file:` keeps a name such as `concat:a|b` from being read as FFmpeg's protocol of that name
        return open_container("file:" + os.path.abspath(self.path), limits)  # noqa: PTH100

    def head(self, count: int) -> tuple[bytes, int]:
        with open(self.path, "rb") as file:  # noqa: PTH123 (a hot path)
            return file.read(count), file.seek(0, os.SEEK_END)


class _Stretch:
    """Bytes `offset` to `offset + size` of a shard on this machine."""

    def __init__(self, video: ShardVideo) -> None:
        self.path = video.path
        self._video = video

    def check(self, limits: Limits) -> None:
        video = self._video
        try:
            check_file(video.shard)
        except DecodeError as error:
            raise unreadable(
                self.path, error.reason, f"its shard cannot be read ({error})"
            ) from error
        with open(video.shard, "rb") as file:  # noqa: PTH123 (a hot path)
            there = file.seek(0, os.SEEK_END)
            if video.offset + video.size > there:
                raise _ends_before(video, there)
            file.seek(video.offset - TAR_BLOCK)
            _check_header(video, file.read(TAR_BLOCK))

    def stamp(self) -> Stamp | None:
        return _stamp_of(self._video.shard)

    @contextmanager
    def opened(self, limits: Limits) -> Iterator[InputContainer]:
        with _Window(self._video) as file, open_container(file, limits) as container:
            yield container

    def head(self, count: int) -> tuple[bytes, int]:
        with _Window(self._video) as file:
            return file.read(count), self._video.size


class _Fetched:
    """The same of a shard elsewhere, kept in memory."""

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
                f"{video.size / 2**20:.0f} MiB would have to be fetched, over the limit of "
                f"{limits.max_bytes / 2**20:.0f} MiB; download the shard",
            )
        first = video.offset - TAR_BLOCK
        try:
            content = fetch(video.shard, first, video.offset + video.size)
        except FileNotFoundError as error:
            raise unreadable(
                self.path, "missing", f"its shard cannot be read ({video.shard}: no such file)"
            ) from error
        except PermissionError as error:
            raise unreadable(
                self.path, "permission", f"its shard may not be read ({error})"
            ) from error
        except OSError as error:
            raise unreadable(
                self.path, "unreachable", f"its storage does not answer ({error})"
            ) from error
        if len(content) < TAR_BLOCK + video.size:
            raise _ends_before(video, first + len(content))
        _check_header(video, content[:TAR_BLOCK])
        self._content = content[TAR_BLOCK:]

    def stamp(self) -> Stamp | None:
        return (
            self._video.size,
            self._video.offset,
        )  # nothing is asked of the storage before the video is

    @contextmanager
    def opened(self, limits: Limits) -> Iterator[InputContainer]:
        file = io.BytesIO(self._content)
        file.name = self._video.member  # its suffix, as below
        with open_container(file, limits) as container:
            yield container

    def head(self, count: int) -> tuple[bytes, int]:
        return self._content[:count], len(self._content)


def _stamp_of(path: str) -> Stamp | None:
    try:
        facts = os.stat(path)  # noqa: PTH116 (a hot path)
    except (OSError, ValueError):
        return None  # told when it is opened
    return facts.st_size, facts.st_mtime_ns


class _Window(io.RawIOBase):
    """A stretch of a file as a file of its own, for FFmpeg to read and seek in."""

    def __init__(self, video: ShardVideo) -> None:
        self.name = video.member  # FFmpeg looks at its suffix, as it does in folders
        self._first, self._size, self._place = video.offset, video.size, 0
        self._file = os.open(video.shard, os.O_RDONLY | os.O_CLOEXEC)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"seek to {start + offset}, before the video's first byte")
        self._place = start + offset
        return self._place

    def read(self, size: int = -1) -> bytes:
        left = max(self._size - self._place, 0)
        content = os.pread(
            self._file, left if size < 0 else min(size, left), self._first + self._place
        )
        self._place += len(content)
        return content

    def close(self) -> None:
        if not self.closed:
            os.close(self._file)
        super().close()


def _ends_before(video: ShardVideo, there: int) -> DecodeError:
    return unreadable(
        video.path,
        "truncated",
        f"its shard has {max(there, 0)} bytes, and the video lies at {video.offset} to {video.offset + video.size}; "
        "fetch the shard again",
    )


def _check_header(video: ShardVideo, header: bytes) -> None:
    """The tar header before a stretch has the video's name and size, or the stretch is something else."""
    name, size = header[:100].rstrip(b"\0").decode("utf-8", "replace"), header[124:135]
    if name != video.member or size != b"%011o" % video.size:
        raise unreadable(
            video.path,
            "container",
            f"does not lie at byte {video.offset} of its shard, as the index says; index and shards belong to different "
            "sets, make them anew",
        )
    if video.size == 0:
        raise unreadable(
            video.path, "empty", "is empty (0 bytes); fetch or make it again, and the shards"
        )
