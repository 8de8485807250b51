"""A few frames of every video: whether it can be read, and small pictures to compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hiera_video.data.clip_frames import record_frame_range
from hiera_video.data.loading.map_videos import map_videos
from hiera_video.data.loading.quarantine import OnOpen, QuarantinePolicy
from hiera_video.data.loading.storage import StorageGuard
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.errors import DecodeError
from hiera_video.video import open_video
from hiera_video.video.options import Backend

SIDE = 16
"""Height and width of a thumbnail."""
QUARTERS = (1, 2, 3)
"""Places of the frames, in quarters of the video."""
MAX_DIFFERENCE = 8
"""Largest difference of two pixels of nearly equal pictures; re-encoding changes a few levels."""


@dataclass(frozen=True, kw_only=True)
class Glance:
    """Thumbnails of a video, or the error of an unreadable one."""

    path: str
    message: str | None = None
    """Why the video is unreadable; None: it is readable."""
    thumbnails: NDArray[np.uint8] | None = None
    """uint8 [frames, SIDE, SIDE], the brightness."""


class VideoGlancer:
    """Reads a few frames of the video at an index of `records`, one at a time.

    Args:
        records: The videos.
        decoder: The decoder, as `open_video` takes it.

    Raises:
        StorageError: The folder that all videos lie in is missing or empty.
    """

    def __init__(self, records: tuple[Record, ...], decoder: Backend) -> None:
        self.records, self.decoder = records, decoder
        self._storage = StorageGuard(records)

    def __call__(self, index: int, on_open: OnOpen) -> Glance:
        """Read a video; an unreadable one raises no error."""
        record = self.records[index]
        try:
            pictures = self._storage.read(record, partial(self._thumbnails, record), on_open)
        except DecodeError as error:
            return Glance(path=record.path, message=str(error))
        return Glance(path=record.path, thumbnails=pictures)

    def _thumbnails(self, record: Record) -> NDArray[np.uint8]:
        with open_video(record.source, self.decoder) as video:
            window = record_frame_range(video, record)
            last = window.num_frames - 1
            places = [window.first + last * quarter // 4 for quarter in QUARTERS]
            return np.stack([thumbnail(video.frames([place])[0]) for place in places])


def glance(
    manifest: Manifest, *, decoder: Backend, workers: int, quarantine: QuarantinePolicy
) -> Iterator[Glance]:
    """Yield the thumbnails of each record's video, in the manifest's order.

    Time and memory of a video do not depend on its length.

    Args:
        manifest: The videos.
        decoder: The decoder, as `open_video` takes it.
        workers: Processes; 0 reads in this one.
        quarantine: Deadline of one video.

    Raises:
        StorageError: The storage of the videos fails.
    """
    reader = VideoGlancer(manifest.records, decoder)
    rows = range(len(manifest.records))
    return map_videos(reader, rows, workers=workers, quarantine=quarantine)


def thumbnail(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the mean brightness of SIDE × SIDE parts of a frame [H, W, 3]."""
    height, width, _ = frame.shape
    tops, lefts = (np.arange(SIDE) * size // SIDE for size in (height, width))
    grey = frame.mean(axis=2)
    sums = np.add.reduceat(np.add.reduceat(grey, tops, axis=0), lefts, axis=1)
    heights, widths = (
        np.maximum(np.diff([*starts, size]), 1) for starts, size in ((tops, height), (lefts, width))
    )
    means: NDArray[np.uint8] = (sums / np.outer(heights, widths)).round().astype(np.uint8)
    return means


def near_duplicates(thumbnails: Sequence[NDArray[np.uint8] | None]) -> list[tuple[int, int]]:
    """Return the pairs of videos that show nearly the same pictures.

    Only videos of similar brightness are compared.

    Args:
        thumbnails: Small pictures of each video, all of one shape; None for none.

    >>> black, grey = np.zeros((3, 2, 2), np.uint8), np.full((3, 2, 2), 90, np.uint8)
    >>> near_duplicates([black, grey, None, grey + 4])
    [(1, 3)]
    """
    known = [(row, value) for row, value in enumerate(thumbnails) if value is not None]
    if not known:
        return []
    rows = np.array([row for row, _ in known])
    pictures = np.stack([value for _, value in known]).reshape(len(rows), -1).astype(np.int16)
    order = np.argsort(pictures.mean(axis=1), kind="stable")
    rows, pictures = rows[order], pictures[order]
    brightness = pictures.mean(axis=1)
    ends = np.searchsorted(brightness, brightness + MAX_DIFFERENCE, side="right")
    pairs: list[tuple[int, int]] = []
    for place, end in enumerate(ends):
        differences = np.abs(pictures[place + 1 : end] - pictures[place])
        others = rows[place + 1 : end][differences.max(axis=1, initial=0) <= MAX_DIFFERENCE]
        pairs += [(int(rows[place]), int(other)) for other in others]
    return sorted((min(pair), max(pair)) for pair in pairs)
