"""Read every video of a manifest: its properties, or the reason why it cannot be read."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hiera_video.data.clip_frames import record_frame_range
from hiera_video.data.loading.map_videos import map_videos
from hiera_video.data.loading.quarantine import OnOpen, QuarantinePolicy
from hiera_video.data.loading.storage import StorageGuard
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.errors import DecodeError
from hiera_video.utils.remote_files import fetch, is_url
from hiera_video.utils.safe_paths import is_hidden
from hiera_video.video import open_video
from hiera_video.video.options import Backend
from hiera_video.video.packet_index import Stamp
from hiera_video.video.pyav import PyAVReader
from hiera_video.video.reader import Limits, VideoReader

FRAMES_PER_CALL = 64
"""Largest number of frames decoded at once; limits memory."""
QUICK_FRAMES = 8


@dataclass(frozen=True, kw_only=True)
class ScannedVideo:
    """Result of reading one video."""

    row: int
    path: str
    reason: str | None = None
    """Why the video is unreadable, one of `video.reader.REASONS`; None: it is readable."""
    message: str | None = None
    num_frames: int = 0
    fps: float = 0.0
    seconds: float = 0.0
    width: int = 0
    height: int = 0
    digest: str | None = None
    """BLAKE2 of the file's bytes; None for frame folders and for files that cannot be opened."""
    packets: tuple[Stamp, bytes] | None = None
    """Row for the packet index, if one was requested and the video's container profits from it."""


class VideoScanner:
    """Reads the video at an index of `records`.

    Args:
        records: The videos.
        decoder: The decoder, as `open_video` takes it.
        quick: Decode a few frames of each instead of all.
        index_packets: Collect rows for a packet index.

    Raises:
        StorageError: The folder that all videos lie in is missing or empty.
    """

    def __init__(
        self, records: tuple[Record, ...], decoder: Backend, quick: bool, index_packets: bool
    ) -> None:
        self.records = records
        self.decoder = decoder
        self.quick = quick
        self.index_packets = index_packets
        self._storage = StorageGuard(records)

    def __call__(self, index: int, on_open: OnOpen) -> ScannedVideo:
        """Read a video; an unreadable one raises no error.

        Raises:
            StorageError: The storage of the videos fails for longer than the guard waits.
        """
        record, digests = self.records[index], list[str | None]()
        try:
            return self._storage.read(record, partial(self._scan, record, digests), on_open)
        except DecodeError as error:
            return ScannedVideo(
                row=record.row,
                path=record.path,
                reason=error.reason,
                message=str(error),
                digest=digests[-1] if digests else None,
            )

    def _scan(self, record: Record, digests: list[str | None]) -> ScannedVideo:
        """Read a video; append the digest of its bytes to `digests` once it could be opened."""
        packets = None
        with open_video(record.source, self.decoder) as video:
            digests.append(content_digest(record))
            record_frame_range(video, record)  # raises where training would find no frame
            info = video.info
            self._decode(video)
            if self.index_packets and isinstance(video, PyAVReader):
                packets = video.packet_index_row()
        return ScannedVideo(
            row=record.row,
            path=record.path,
            num_frames=info.num_frames,
            fps=info.fps,
            seconds=info.duration_seconds,
            width=info.width,
            height=info.height,
            digest=digests[-1],
            packets=packets,
        )

    def _decode(self, video: VideoReader) -> None:
        if isinstance(video, PyAVReader) and not self.quick:
            # one pass over the file: parts would each be decoded from a key frame, or from frame 0
            for _ in video.iter_frames():
                pass
            return
        count = len(video.times)
        indices = list(range(count))
        if self.quick:
            last = QUICK_FRAMES - 1
            indices = sorted({i * (count - 1) // last for i in range(QUICK_FRAMES)})
        frame_bytes = video.info.width * video.info.height * 3
        step = max(1, min(FRAMES_PER_CALL, Limits().max_bytes // frame_bytes))
        for start in range(0, len(indices), step):
            video.frames(indices[start : start + step])


def scan(
    manifest: Manifest,
    *,
    decoder: Backend,
    workers: int,
    quarantine: QuarantinePolicy,
    quick: bool = False,
    index_packets: bool = False,
) -> Iterator[ScannedVideo]:
    """Yield the result of reading each record's video, in the manifest's order.

    Args:
        manifest: Videos to read.
        decoder: The decoder, as `open_video` takes it.
        workers: Processes; 0 reads in this one.
        quarantine: Deadline of one video, and the list of those that exceeded it.
        quick: Decode a few frames of each video instead of all.
        index_packets: Also collect what a packet index needs.

    Raises:
        StorageError: The storage of the videos fails: it is missing, or stays away.
    """
    scanner = VideoScanner(manifest.records, decoder, quick, index_packets)
    rows = range(len(manifest.records))
    return map_videos(scanner, rows, workers=workers, quarantine=quarantine)


def content_digest(record: Record) -> str | None:
    """Return BLAKE2 of a video's bytes, in a file, a shard or the pictures of a folder.

    None if it is none of them.
    """
    digest, video = hashlib.blake2b(digest_size=16), record.shard_video
    if video is not None and is_url(video.shard):
        digest.update(fetch(video.shard, video.offset, video.offset + video.size))
        return digest.hexdigest()
    if video is None and os.path.isdir(record.path):  # noqa: PTH112 (a hot path)
        files = (file for file in Path(record.path).iterdir() if not is_hidden(file.name))
        for picture in sorted(file for file in files if file.is_file()):
            digest.update(picture.read_bytes())
        return digest.hexdigest()
    if video is None and not os.path.isfile(record.path):  # noqa: PTH113 (a hot path)
        return None
    path, left = (record.path, math.inf) if video is None else (video.shard, video.size)
    with open(path, "rb") as file:  # noqa: PTH123 (a hot path)
        file.seek(0 if video is None else video.offset)
        while left > 0 and (chunk := file.read(int(min(left, 1 << 20)))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()
