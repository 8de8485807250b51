"""A test in shards: stretches of the manifest that are computed each alone, so that the number of processes, the order
they work in and an interruption change no byte of the predictions.

A shard is `batch_size` videos, so that its views fill whole batches. A finished one is kept in a file until the test
is complete; the same test, started again, reads it instead of computing it. One with a broken video is computed again.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiera_video.data.dataset import UnreadableVideo
from hiera_video.data.manifest.record import Record
from hiera_video.eval.views import Predictions
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.hashing import json_sha256

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EvalShard:
    """What a model said of one stretch of the manifest."""

    rows: NDArray[np.int64]
    """[n] manifest rows of the videos that could be read."""
    logits: NDArray[np.float32]
    """[n, V, K]."""
    seconds: NDArray[np.float64]
    """[n] time that reading and scaling each video took."""
    broken: tuple[UnreadableVideo, ...]
    """The other videos of the stretch."""


def shard_ranges(num_videos: int, batch_size: int) -> list[range]:
    """Which videos are computed together: `shard_ranges(5, 2) == [range(0, 2), range(2, 4), range(4, 5)]`."""
    return [
        range(start, min(start + batch_size, num_videos))
        for start in range(0, num_videos, batch_size)
    ]


def merge(shards: Sequence[EvalShard], *, of: int) -> Predictions:
    """All shards in the order of the manifest. `RuntimeError` unless each of its `of` rows is there exactly once, with
    the same number of views: an error here is ours, and a number computed in spite of it would be wrong."""
    found = [
        row
        for shard in shards
        for row in (*shard.rows.tolist(), *(item.row for item in shard.broken))
    ]
    twice = (
        sorted({row for row in found if found.count(row) > 1})
        if len(set(found)) < len(found)
        else []
    )
    missing = sorted(set(range(of)) - set(found))
    if twice or missing or len(found) != of:
        raise RuntimeError(
            f"of {of} videos, rows {missing[:10]} are missing and rows {twice[:10]} are counted twice"
        )
    full = [shard for shard in shards if len(shard.rows)]
    if len(shapes := {shard.logits.shape[1:] for shard in full}) > 1:
        raise RuntimeError(f"videos differ in their number of views and classes: {sorted(shapes)}")
    rows = np.concatenate([np.zeros(0, np.int64), *(shard.rows for shard in full)])
    order = rows.argsort()
    return Predictions(
        rows=rows[order],
        logits=np.concatenate([shard.logits for shard in full])[order]
        if full
        else np.zeros((0, 0, 0), np.float32),
        broken=tuple(
            sorted((item for shard in shards for item in shard.broken), key=lambda item: item.row)
        ),
        seconds=np.concatenate([np.zeros(0), *(shard.seconds for shard in full)])[order],
    )


class EvalShardStore:
    """The finished shards of one unfinished test, in `folder/<identity's hash>/`.

    `identity` is all that decides a shard's bytes but the videos: weights' hash, protocol, versions. The videos are
    compared one by one (path, stretch, frames that count, size, time of change): a file that was changed is read again.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], records: Sequence[Record]) -> None:
        digest = json_sha256(identity)
        self.folder = folder / digest[:16]
        self.records = records

    def read(self, videos: range) -> EvalShard | None:
        """The shard of `videos`, None where it is not finished, damaged, or of files that changed since."""
        path = self._path(videos)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                if json.loads(arrays["files"].tobytes()) != self._files(videos):
                    return None
                return EvalShard(
                    rows=arrays["rows"],
                    logits=arrays["logits"],
                    seconds=arrays["seconds"],
                    broken=(),
                )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("%s: damaged (%s); computed again", path, error)
            return None

    def write(self, videos: range, shard: EvalShard) -> None:
        """Keep a finished shard, unless a video of it is broken; it appears whole or not at all."""
        if shard.broken:
            return  # what broke it may end without a trace in the file: its permissions, the deadline, the quarantine
        content = io.BytesIO()
        files = np.frombuffer(json.dumps(self._files(videos)).encode(), np.uint8)
        np.savez(content, rows=shard.rows, logits=shard.logits, seconds=shard.seconds, files=files)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(videos)
        write_atomic(path, content.getvalue())

    def clear(self) -> None:
        """Delete the shards, once the whole test is written."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.parent.is_dir() and not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()

    def _path(self, videos: range) -> Path:
        return self.folder / f"{videos.start:08d}-{videos.stop:08d}.npz"

    def _files(self, videos: range) -> list[list[Any]]:
        found: list[list[Any]] = []
        for record in (self.records[index] for index in videos):
            try:
                facts = Path(
                    record.path if record.shard_video is None else record.shard_video.shard
                ).stat()
                state = [facts.st_size, facts.st_mtime_ns]
            except OSError:
                state = []
            found.append(
                [record.path, record.start_seconds, record.end_seconds, record.num_frames, *state]
            )
        return found
