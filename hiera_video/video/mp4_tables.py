"""Sample counts that an MP4 file declares, checked before FFmpeg allocates memory for them.

An entry of four bytes can declare four billion samples, and FFmpeg would make an index of all of
them before it reads the first. A sample takes a byte at least, so that a file cannot hold more
samples than bytes. Times of the check: 0.1 ms for a short clip, 0.2 s for 3,600 fragments.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from hiera_video.errors import DecodeError
from hiera_video.video.reader import Limits, unreadable

Read = Callable[[int, int], tuple[bytes, int]]
"""Returns a number of bytes from an offset on, or as many as there are, and the size in bytes."""

CONTAINERS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"udta"})
MAX_DEPTH = 16
MAX_BOXES = 1 << 20
WINDOW_BYTES = 1 << 14
MAX_HEADER_BYTES = 64 << 20
"""Largest size of a compressed header when it is decompressed."""
SAMPLES_PER_ENTRY = 160
"""FFmpeg joins at least so many samples of uncompressed sound in an index entry."""
RUNS = {b"ctts": 4, b"sbgp": 8}
"""Tables of (number of samples, value), and the position of their number of entries."""


class Box(NamedTuple):
    """A box of an MP4 file: its type, and the range of its content in bytes."""

    kind: bytes
    start: int
    stop: int


class Track:
    """The counts that the boxes of one track declare."""

    def __init__(self) -> None:
        self.samples = self.chunks = self.samples_per_chunk = 0
        self.is_sound = self.has_unit_durations = False

    @property
    def index_entries(self) -> int:
        """Entries of the index that FFmpeg makes."""
        if self.is_sound and self.has_unit_durations:
            return self.chunks * self.samples_per_chunk // SAMPLES_PER_ENTRY
        return self.samples


class DeclaredCounts:
    """Streams and samples that an MP4 file declares; none in files of other formats.

    Args:
        path: Name of the video in messages.
        read: Reads bytes of the file.
        limits: Limits on streams and samples.
        depth: Number of containers around the file, which is 0 except in compressed headers.
    """

    def __init__(self, path: str, read: Read, limits: Limits, depth: int = 0) -> None:
        self._path, self._read, self._limits, self._depth = path, read, limits, depth
        self._window_start, (self._window, self._size) = 0, read(WINDOW_BYTES, 0)
        self._tracks: list[Track] = []
        self._fragment_samples = 0

    def check(self, file_size: int | None = None) -> None:
        """Check the counts.

        Args:
            file_size: Size of the file in bytes, if only a part of it is read here.

        Raises:
            DecodeError: The file declares more samples than it can hold, or exceeds a limit.
        """
        for box in self._boxes():
            self._count(box, file_size or self._size)
        if len(self._tracks) > self._limits.max_streams:
            raise too_many_streams(self._path, self._limits)
        samples = [track.index_entries for track in self._tracks] + [self._fragment_samples]
        self._check_samples(max(samples), file_size or self._size)

    def _check_samples(self, count: int, file_size: int) -> None:
        if count > file_size:
            message = f"its header declares {count} samples in a file of {file_size} bytes; "
            remedy = "download or create the file again"
            raise unreadable(self._path, "container", message + remedy)
        if count > self._limits.max_packets:
            message = f"its {count} samples are over the limit of {self._limits.max_packets}; "
            raise unreadable(self._path, "too_large", message + "split the video")

    def _count(self, box: Box, file_size: int) -> None:
        track = self._tracks[-1] if self._tracks else Track()
        match box.kind:
            case b"trak":
                self._tracks.append(Track())
            case b"hdlr":
                handler = self._bytes(box, 8, 4)
                if handler in (b"soun", b"vide"):  # QuickTime also has one for each file
                    track.is_sound = handler == b"soun"
            case b"stsz" | b"stz2":
                track.samples = max(track.samples, self._number(box, 8))
            case b"stco" | b"co64":
                track.chunks = max(track.chunks, self._number(box, 4))
            case b"stts":
                track.has_unit_durations = self._number(box, 4) == self._number(box, 12) == 1
            case b"stsc":
                runs = self._table(box, 4, columns=3, file_size=file_size)
                track.samples_per_chunk = int(runs[:, 1].max(initial=0))
            case b"ctts" | b"sbgp":
                runs = self._table(box, RUNS[box.kind], columns=2, file_size=file_size)
                track.samples = max(track.samples, int(runs[:, 0].sum()))
            case b"trun":
                self._fragment_samples += self._number(box, 4)
                self._check_samples(self._fragment_samples, file_size)
            case b"cmov":
                self._check_compressed(box, file_size)

    def _check_compressed(self, box: Box, file_size: int) -> None:
        """Check the counts in a compressed header."""
        packed = self._bytes(box, 0, min(box.stop - box.start, MAX_HEADER_BYTES))
        start = packed.find(b"cmvd") + 8  # behind the box's type and the declared size
        unpacker = zlib.decompressobj()
        try:
            content = unpacker.decompress(packed[start:], MAX_HEADER_BYTES) if start > 7 else b""
        except zlib.error:
            return  # FFmpeg refuses it too
        if unpacker.unconsumed_tail:
            message = f"its compressed header takes more than {MAX_HEADER_BYTES >> 20} MiB"
            raise unreadable(self._path, "too_large", message)
        if self._depth >= MAX_DEPTH:
            raise self._too_deep()

        def read(count: int, offset: int) -> tuple[bytes, int]:
            return content[offset : offset + count], len(content)

        DeclaredCounts(self._path, read, self._limits, self._depth + 1).check(file_size)

    def _boxes(self) -> Iterator[Box]:
        """Yield all boxes, those in containers behind the container."""
        ends, place = [self._size], 0
        for _ in range(MAX_BOXES):
            while ends and place + 8 > ends[-1]:
                place = ends.pop()
            if not ends:
                return
            header = self._at(place, 16)
            length, start = int.from_bytes(header[:4], "big"), place + 8
            if length == 1:  # 64 bits
                length, start = int.from_bytes(header[8:], "big"), place + 16
            elif length == 0:  # to the end
                length = ends[-1] - place
            if length < start - place:
                place = ends.pop()
                continue
            box = Box(header[4:8], start, min(place + length, ends[-1]))
            yield box
            place = box.stop
            if box.kind in CONTAINERS:
                if len(ends) > MAX_DEPTH:
                    raise self._too_deep()
                ends.append(box.stop)
                place = box.start
        message = f"its header has more than {MAX_BOXES} boxes"
        raise unreadable(self._path, "container", message)

    def _too_deep(self) -> DecodeError:
        return unreadable(self._path, "container", f"its boxes nest deeper than {MAX_DEPTH}")

    def _number(self, box: Box, offset: int) -> int:
        return int.from_bytes(self._bytes(box, offset, 4), "big")

    def _table(self, box: Box, offset: int, *, columns: int, file_size: int) -> np.ndarray:
        """Return the entries of a table, whose number stands at `offset` of its box."""
        rows = self._number(box, offset)
        self._check_samples(rows, file_size)
        content = self._bytes(box, offset + 4, rows * columns * 4)
        whole = len(content) // (columns * 4)
        flat = np.frombuffer(content, ">u4", whole * columns)
        return flat.reshape(-1, columns).astype(np.int64)

    def _bytes(self, box: Box, offset: int, count: int) -> bytes:
        start = box.start + offset
        return self._at(start, max(min(count, box.stop - start), 0))

    def _at(self, place: int, count: int) -> bytes:
        """Return bytes of the file through a window, which saves reads of single boxes."""
        if count > WINDOW_BYTES:
            return self._read(count, place)[0]
        if not self._window_start <= place <= self._window_start + len(self._window) - count:
            self._window_start, self._window = place, self._read(WINDOW_BYTES, place)[0]
        first = place - self._window_start
        return self._window[first : first + count]


def too_many_streams(path: str, limits: Limits) -> DecodeError:
    """Return the error for a file with more streams than the limit."""
    message = f"has more than {limits.max_streams} streams; copy those that are needed: "
    return unreadable(path, "too_large", message + "ffmpeg -i FILE -map 0:v:0 -c copy NEW")
