"""Packet index: packet times of many videos, so that opening reads only a header.

    hiera-video check-data --train long.csv --out check --index        # check/packets.index
    hiera-video train … data.index=check/packets.index

The index is an SQLite file with a row per video: path, size, modification time, and the times and
kind of every packet. A video without a row, or whose size or time has changed, is scanned as
without an index. Only videos whose container stores the times of each packet (MP4, Matroska) and
whose packets determine the frames are indexed, but not MPEG-1, 2 and 4, whose packets are compared
with the container's flags each time; others must be scanned anyway.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from hiera_video.errors import ConfigError
from hiera_video.utils.atomic_files import atomic_path
from hiera_video.video.frame_index import FrameIndex
from hiera_video.video.reader import Limits

FORMAT = 1
NONE = np.iinfo(np.int64).min
KEY, DISCARD = 1, 2
Stamp = tuple[int, int]
"""Size and modification time of a file, or another pair that changes with its content."""


@dataclass(frozen=True, kw_only=True)
class PacketTable:
    """Times and kinds of all packets of a video, in decode order."""

    pts: npt.NDArray[np.int64]
    """Presentation times."""
    dts: npt.NDArray[np.int64]
    """Decode times; `NONE` where a packet has none."""
    kinds: npt.NDArray[np.uint8]
    """Bits `KEY` and `DISCARD`."""

    def times(self) -> list[tuple[int | None, int | None]]:
        """Return pts and dts of each packet."""
        dts = (None if value == NONE else value for value in self.dts.tolist())
        return list(zip(self.pts.tolist(), dts))

    def frame_index(self) -> FrameIndex:
        """Return what `frame_index.build_index` returns for these packets.

        Only packets for which it returns an index are stored, so its checks are not repeated.
        """
        shown = np.flatnonzero(self.kinds & DISCARD == 0)
        packet = shown[np.argsort(self.pts[shown], kind="stable")]
        keys = np.flatnonzero(self.kinds & KEY)
        return FrameIndex(
            pts=tuple(self.pts[packet].tolist()),
            packet=tuple(packet.tolist()),
            keys=tuple(keys.tolist()),
            key_pts=tuple(self.pts[keys].tolist()),
        )

    def to_bytes(self) -> bytes:
        """Serialise the table; differences of times repeat and so compress well."""
        times = (np.diff(times, prepend=np.int64(0)).tobytes() for times in (self.pts, self.dts))
        return zlib.compress(b"".join((*times, self.kinds.tobytes())), 9)

    @classmethod
    def from_bytes(cls, content: bytes) -> PacketTable:
        """Load a table that `to_bytes` wrote; `ValueError` or `zlib.error` if it is damaged."""
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(content, 17 * Limits().max_packets)
        count, rest = divmod(len(raw), 17)
        if rest or not count or not unpacker.eof:
            raise ValueError(f"{len(raw)} bytes are not a packet table")
        pts, dts = (
            np.frombuffer(raw, np.int64, count, offset).cumsum() for offset in (0, 8 * count)
        )
        return cls(pts=pts, dts=dts, kinds=np.frombuffer(raw, np.uint8, count, 16 * count))


def find_packets(index: str, path: str, stamp: Stamp | None) -> PacketTable | None:
    """Look up a video's packets.

    Args:
        index: Path of the index file.
        path: Path of the video, as stored in the index.
        stamp: Current stamp of the video; None if it does not exist.

    Returns:
        The packets; None if the video is not in the index or has changed since.

    Raises:
        ConfigError: The index is missing or damaged.
    """
    if stamp is None:
        return None
    connection = _connection(index, os.getpid())  # its ConfigError is a ValueError
    try:
        row = connection.execute(
            "SELECT packets FROM videos WHERE path = ? AND size = ? AND date = ?", (path, *stamp)
        ).fetchone()  # fmt: skip
        return None if row is None else PacketTable.from_bytes(row[0])
    except (sqlite3.Error, ValueError, zlib.error) as error:
        raise _damaged(index, error) from error


def write_index(index: Path, rows: Iterable[tuple[str, Stamp, bytes]]) -> int:
    """Write an index atomically.

    Args:
        index: Path of the new file; an existing one is replaced.
        rows: Path, stamp and serialised `PacketTable` of each video.

    Returns:
        The number of videos in the index.
    """
    with atomic_path(index) as partial:
        partial.unlink(missing_ok=True)
        with closing(sqlite3.connect(partial)) as connection, connection:
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.execute(
                "CREATE TABLE videos "
                "(path TEXT PRIMARY KEY, size INTEGER, date INTEGER, packets BLOB)"
            )
            connection.executemany(
                "INSERT OR REPLACE INTO videos VALUES (?, ?, ?, ?)",
                ((path, *stamp, packets) for path, stamp, packets in rows),
            )
            (count,) = connection.execute("SELECT count(*) FROM videos").fetchone()
    return int(count)


@lru_cache(maxsize=4)
def _connection(index: str, process: int) -> sqlite3.Connection:
    """Open the index; once per process, as a connection must not cross a fork."""
    if not Path(index).is_file():
        raise ConfigError(
            f"data.index={index}: no such file; hiera-video check-data --index writes it"
        )
    try:
        # immutable: an index is never modified, and network disks may lack locks
        uri = f"file:{quote(os.path.abspath(index))}?mode=ro&immutable=1"  # noqa: PTH100
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        (found,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        raise _damaged(index, error) from error
    if found != FORMAT:
        raise _damaged(index, f"format {found} instead of {FORMAT}")
    return connection


def _damaged(index: str, error: Any) -> ConfigError:
    return ConfigError(
        f"data.index={index}: damaged, or not a packet index ({error}); "
        "write it again with hiera-video check-data --index"
    )
