"""PacketTable of videos, written down once: opening then reads a file's header alone, and reading a clip is one seek.

    python tools/check_data.py --train long.csv --out check --index        # check/packets.index
    python tools/train_net.py … data.index=check/packets.index

An SQLite file with one row a video: its path, its size and date, and time and kind of every packet. A video that has
another size or date now, or no row, is read as without an index. Only files whose container stores each packet's times
(MP4, Matroska) and whose packets tell the frames are written down: others have to be read through anyway.
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

FORMAT = 1
NONE = np.iinfo(np.int64).min
KEY, DISCARD = 1, 2
Stamp = tuple[int, int]
"""Size and date of a file, or what else changes with it."""


@dataclass(frozen=True, kw_only=True)
class PacketTable:
    """Facts about all packets of a video, in decode order."""

    pts: npt.NDArray[np.int64]
    dts: npt.NDArray[np.int64]
    """`NONE` where a packet has none."""
    kinds: npt.NDArray[np.uint8]
    """`KEY`, `DISCARD`, both or neither."""

    def clock(self) -> list[tuple[int | None, int | None]]:
        """pts and dts of each packet."""
        return list(
            zip(self.pts.tolist(), (None if dts == NONE else dts for dts in self.dts.tolist()))
        )

    def frame_index(self) -> FrameIndex:
        """What `index.build_index` makes of the same packets, which it has been asked before they were written down."""
        shown = np.flatnonzero(self.kinds & DISCARD == 0)
        packet = shown[np.argsort(self.pts[shown], kind="stable")]
        keys = np.flatnonzero(self.kinds & KEY)
        pts, of_keys = self.pts[packet], self.pts[keys]
        return FrameIndex(
            pts=tuple(pts.tolist()),
            packet=tuple(packet.tolist()),
            keys=tuple(keys.tolist()),
            key_pts=tuple(of_keys.tolist()),
        )

    def to_bytes(self) -> bytes:
        """Differences of times repeat, and so take hardly any place."""
        times = (np.diff(times, prepend=np.int64(0)).tobytes() for times in (self.pts, self.dts))
        return zlib.compress(b"".join((*times, self.kinds.tobytes())), 9)

    @classmethod
    def from_bytes(cls, content: bytes) -> PacketTable:
        raw = zlib.decompress(content)
        count, rest = divmod(len(raw), 17)
        if rest or not count:
            raise ValueError(f"{len(raw)} bytes are no packets")
        pts, dts = (
            np.frombuffer(raw, np.int64, count, offset).cumsum() for offset in (0, 8 * count)
        )
        return cls(pts=pts, dts=dts, kinds=np.frombuffer(raw, np.uint8, count, 16 * count))


def find_packets(index: str, path: str, stamp: Stamp | None) -> PacketTable | None:
    """The packets of the video at `path`, if they were written down when it was as it is now."""
    if stamp is None:
        return None
    try:
        row = _connection(index, os.getpid()).execute(
            "SELECT packets FROM videos WHERE path = ? AND size = ? AND date = ?", (path, *stamp)
        ).fetchone()  # fmt: skip
        return None if row is None else PacketTable.from_bytes(row[0])
    except (sqlite3.Error, ValueError, zlib.error) as error:
        raise _damaged(index, error) from error


def write_index(index: Path, rows: Iterable[tuple[str, Stamp, bytes]]) -> int:
    """Write the index anew; how many videos it has. It appears when it is complete."""
    with atomic_path(index) as partial:
        partial.unlink(missing_ok=True)
        with closing(sqlite3.connect(partial)) as connection, connection:
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.execute(
                "CREATE TABLE videos (path TEXT PRIMARY KEY, size INTEGER, date INTEGER, packets BLOB)"
            )
            connection.executemany(
                "INSERT OR REPLACE INTO videos VALUES (?, ?, ?, ?)",
                ((path, *stamp, packets) for path, stamp, packets in rows),
            )
            (count,) = connection.execute("SELECT count(*) FROM videos").fetchone()
    return int(count)


@lru_cache(maxsize=4)
def _connection(index: str, process: int) -> sqlite3.Connection:
    """One a process: a connection must not cross a fork."""
    if not Path(index).is_file():
        raise ConfigError(
            f"data.index={index}: no such file; tools/check_data.py --index writes it"
        )
    try:
        # never changed once it is there: no locks, which network disks lack
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
        f"data.index={index}: is damaged or no index ({error}); make it anew with tools/check_data.py --index"
    )
