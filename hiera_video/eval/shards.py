"""Shards of a test: ranges of the manifest whose predictions are computed independently.

A shard has `batch_size` videos, so that its views fill whole batches. A finished shard is kept in a
file until the test is complete, and the same test reads it when it is started again. A shard with
an unreadable video is computed again.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiera_video.data.dataset import UnreadableVideo
from hiera_video.data.detection.key_frame import KeyFrame
from hiera_video.data.manifest.record import Record
from hiera_video.errors import ConfigError
from hiera_video.eval.views import Predictions
from hiera_video.utils.archives import check_stored
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.resumable import ShardFolder, exclusive, file_state, identity_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EvalShard:
    """Predictions for one range of the manifest."""

    rows: NDArray[np.int64]
    """[n] manifest row of each video that could be read."""
    logits: NDArray[np.float32]
    """[n, V, K]."""
    seconds: NDArray[np.float64]
    """[n] time that decoding and resizing each video took."""
    unreadable: tuple[UnreadableVideo, ...]
    """The other videos of the range."""
    outside: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    """[n] True for a box that no crop shows; empty for other tests than those of boxes."""


def merge(shards: Sequence[EvalShard], *, of: int) -> Predictions:
    """Join the shards of a manifest with `of` videos, in manifest order.

    Raises:
        RuntimeError: A row is missing or counted twice, or videos differ in their number of views.
            This is a bug; a number computed in spite of it would be wrong.
    """
    unreadable = sorted(
        (video for shard in shards for video in shard.unreadable), key=lambda video: video.row
    )
    rows = np.concatenate([np.zeros(0, np.int64), *(shard.rows for shard in shards)])
    counts = Counter([*rows.tolist(), *(video.row for video in unreadable)])
    twice = sorted(row for row, count in counts.items() if count > 1)
    missing = sorted(set(range(of)) - set(counts))
    if twice or missing or len(counts) != of:
        raise RuntimeError(
            f"of {of} videos, rows {missing[:10]} are missing and rows {twice[:10]} are counted "
            "twice"
        )
    full = [shard for shard in shards if len(shard.rows)]
    if len(shapes := {shard.logits.shape[1:] for shard in full}) > 1:
        raise RuntimeError(f"videos differ in their number of views and classes: {sorted(shapes)}")
    order = rows.argsort()
    logits = [shard.logits for shard in full] or [np.zeros((0, 0, 0), np.float32)]
    return Predictions(
        rows=rows[order],
        logits=np.concatenate(logits)[order],
        unreadable=tuple(unreadable),
        seconds=np.concatenate([np.zeros(0), *(shard.seconds for shard in full)])[order],
    )


@contextmanager
def lock_results(folder: Path) -> Iterator[None]:
    """Create the folder of a test's results, and hold a lock on it while the block runs.

    Raises:
        ConfigError: Another test holds the lock, or the folder cannot be written.
    """
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written ({error.strerror}); choose another out_dir"
        ) from error
    busy = f"{folder}: another test is writing its results there; wait for its end"
    try:
        with exclusive(folder / ".test.lock", busy):
            yield
    finally:
        if not existed:
            with suppress(OSError):  # there are results
                folder.rmdir()


class EvalShardStore:
    """Finished shards of an unfinished test.

    A shard is found again if the identity is the same and no video in it has changed (path,
    segment, number of frames, size, modification time).

    Args:
        folder: Parent of the test's own folder.
        identity: All settings that determine the logits: digest of the weights, protocol, versions.
        records: The manifest.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], records: Sequence[Record]) -> None:
        self._shards = ShardFolder(identity_folder(folder, identity), marker="npz")
        self._records = records

    def read(self, videos: range) -> EvalShard | None:
        """Return a shard, or None if it is not finished, damaged, or of files that changed since.

        Args:
            videos: Rows of the manifest in the shard.
        """
        path = self._path(videos)
        try:
            check_stored(path)
            with np.load(path, allow_pickle=False) as arrays:
                if json.loads(arrays["files"].tobytes()) != self._states(videos):
                    return None
                return EvalShard(
                    rows=arrays["rows"],
                    logits=arrays["logits"],
                    seconds=arrays["seconds"],
                    unreadable=(),
                    # shards of earlier versions have none
                    outside=arrays["outside"] if "outside" in arrays else np.zeros(0, np.bool_),
                )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("%s: damaged (%s); the shard is computed again", path, error)
            return None

    def write(self, videos: range, shard: EvalShard) -> None:
        """Keep a finished shard, unless one of its videos is unreadable.

        The cause may disappear without a change of the file: permissions, a deadline, quarantine.
        """
        if shard.unreadable:
            return
        content = io.BytesIO()
        files = np.frombuffer(json.dumps(self._states(videos)).encode(), np.uint8)
        names = ("rows", "logits", "seconds", "outside")
        np.savez(content, files=files, **{name: getattr(shard, name) for name in names})
        path = self._path(videos)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content.getvalue(), shared=True)

    def clear(self) -> None:
        """Delete all shards, once the results of the test are written."""
        folder = self._shards.folder
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # there are shards of another test, or none ever were
            folder.parent.rmdir()

    def _path(self, videos: range) -> Path:
        return self._shards.path(videos.start, self._shards.marker)

    def _states(self, videos: range) -> list[list[Any]]:
        return record_states(self._records[row] for row in videos)


def record_states(records: Iterable[Record]) -> list[list[Any]]:
    """Return for each record what changes if its video or the part that it names changes."""
    return [
        [
            *(record.path, record.start_seconds, record.end_seconds, record.num_frames),
            *file_state(record.shard_video.shard if record.shard_video else record.path),
            *([record.part] if isinstance(record, KeyFrame) or record.excluded_seconds else []),
        ]
        for record in records
    ]
