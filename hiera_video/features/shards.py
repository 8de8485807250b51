"""Compute one shard of features.

A shard is a range of the manifest with a fixed number of videos. Its bytes depend on those videos,
the configuration and the weights alone: its clips fill batches of one shape, in the order of the
manifest, whichever process computes it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from hiera_video.data.dataset import UnreadableVideo
from hiera_video.data.loading.quarantine import QuarantinePolicy
from hiera_video.data.manifest.record import Record
from hiera_video.features.config import FeaturesConfig
from hiera_video.features.extract import BatchRunner, check_finite
from hiera_video.features.shard_files import INDEX, ShardFiles, checksum, video_state, write_file
from hiera_video.features.shard_reading import ReadWindows, VideoPart
from hiera_video.utils.resumable import folder_deleted, shard_ranges
from hiera_video.utils.text_files import escape_names


@dataclass(frozen=True, kw_only=True)
class ExtractionPlan:
    """Everything that the processes of an extraction share, except for the model."""

    records: tuple[Record, ...]
    """The manifest."""
    shard_videos: int
    """Videos in a shard; the last shard may have fewer."""
    folder: str
    """Output folder."""
    config: FeaturesConfig
    read: ReadWindows
    """Reads the windows of a video."""
    quarantine: QuarantinePolicy
    """When a video that hangs or crashes a worker is quarantined."""
    workers: int
    """Worker processes that decode videos, per process that computes."""

    @cached_property
    def ranges(self) -> list[range]:
        """Rows of the manifest in each shard."""
        return shard_ranges(len(self.records), self.shard_videos)

    def shard(self, number: int) -> Sequence[Record]:
        """Return the records of one shard."""
        rows = self.ranges[number]
        return self.records[rows.start : rows.stop]

    def states(self, number: int) -> list[str]:
        """Return the state of the file of each video of a shard."""
        return [video_state(record) for record in self.shard(number)]

    def reopen_changed(self) -> tuple[int, int]:
        """Mark finished shards as unfinished whose videos were replaced or are more than before.

        Shards of earlier versions, without states, are kept.

        Returns:
            Number of changed videos, and of shards to compute again.
        """
        changed = reopened = 0
        for number in self.files.finished():
            if not self.files.is_finished(number):  # damaged: the claim reopens it
                continue
            summary = self.files.read_summary(number)
            now = self.states(number)
            before = summary.get("states", now)
            different = sum(old != new for old, new in zip(before, now))
            if different or summary["videos"] != len(now):
                self.files.path(number, self.files.marker).unlink(missing_ok=True)
                changed, reopened = changed + different, reopened + 1
        return changed, reopened

    @property
    def files(self) -> ShardFiles:
        """Files in the output folder."""
        return ShardFiles(self.folder)


class PartlyUnreadableError(Exception):
    """A video became unreadable after features of its first windows had been computed.

    The shard has to be computed again without it.
    """

    def __init__(self, video: UnreadableVideo) -> None:
        super().__init__(video.message)
        self.video = video


def compute_shard(
    plan: ExtractionPlan,
    number: int,
    parts: Iterable[VideoPart | UnreadableVideo],
    runner: BatchRunner,
    unreadable: dict[int, UnreadableVideo],
    states: Sequence[str] = (),
) -> dict[str, Any]:
    """Compute a shard and write its files.

    Args:
        plan: The extraction.
        number: Number of the shard.
        parts: The shard's videos in the order of the manifest, long ones in several parts.
        runner: Computes features in batches; empty before and after.
        unreadable: Videos known to be unreadable, by row, even if `parts` has windows of them.
        states: State of the file of each video, from before it was read.

    Returns:
        The shard's summary (see `ShardFiles.read_summary`).

    Raises:
        PartlyUnreadableError: A video became unreadable after its first part. All `parts` have been
            consumed; compute the shard again with the video in `unreadable`.
        FeatureError: A feature is not finite, or a file cannot be written.
        HieraVideoError: The output folder was deleted.
    """
    rows: list[dict[str, Any]] = []
    failed: UnreadableVideo | None = None
    for part in parts:
        video = unreadable.get(part.row, part)
        if isinstance(video, UnreadableVideo):
            started = bool(rows) and rows[-1]["row"] == video.row
            if started and rows[-1]["status"] == "ok":
                failed = failed or video
            elif not started:
                reason = {"reason": video.reason, "message": video.message}
                rows.append(_index_row(video, number, status="broken", **reason))
        elif video.total == 0:
            rows.append(_index_row(video, number, status="short"))
        elif failed is None:
            for clip in video.clips:
                runner.add(clip)
            rows += _window_rows(video, number)
    features = runner.finish()
    if failed is not None:
        raise PartlyUnreadableError(failed)
    computed = [row for row in rows if row["status"] == "ok"]
    for offset, row in enumerate(computed):
        digest = checksum([values[offset] for values in features.values()])
        row |= {"offset": offset, "checksum": digest}
    records = plan.shard(number)
    check_finite(features, plan.config, f"shard {number} ({records[0].path} … {records[-1].path})")
    if not plan.files.exists:  # a write would create it again, without its metadata
        raise folder_deleted(plan.files.folder)
    if plan.config.format != "safetensors":
        _write_arrays(plan, computed, features)
    return plan.files.write(number, pa.Table.from_pylist(rows, schema=INDEX), features, states)


def _window_rows(part: VideoPart, number: int) -> list[dict[str, Any]]:
    return [
        _index_row(
            part,
            number,
            clip=window.number,
            start_seconds=window.start_seconds,
            end_seconds=window.end_seconds,
            tail=window.tail,
        )
        for window in part.windows
    ]


def _index_row(
    video: VideoPart | UnreadableVideo, number: int, *, status: str = "ok", **facts: Any
) -> dict[str, Any]:
    common = {"path": video.path, "row": video.row, "shard": number, "status": status}
    row = {**dict.fromkeys(INDEX.names), "clip": 0, "tail": False, **common, **facts}
    # Parquet's text is UTF-8
    return {key: escape_names(item) if isinstance(item, str) else item for key, item in row.items()}


def _write_arrays(
    plan: ExtractionPlan, rows: list[dict[str, Any]], features: dict[str, Tensor]
) -> None:
    """Write one array file per video, for `features.format`."""
    of_row = np.array([row["row"] for row in rows], np.int64)
    for row in dict.fromkeys(of_row.tolist()):
        (offsets,) = (of_row == row).nonzero()
        clips = [rows[offset] for offset in offsets]
        arrays: dict[str, Any] = {
            name: values[offsets[0] : offsets[-1] + 1].numpy() for name, values in features.items()
        }
        content = io.BytesIO()
        if plan.config.format == "npy":
            np.save(content, next(iter(arrays.values())))
        else:
            for key in ("start_seconds", "end_seconds", "tail"):
                arrays[key] = np.array([clip[key] for clip in clips])
            np.savez(content, **arrays)
        path = plan.files.array_path(row, clips[0]["path"], plan.config.format)
        write_file(path, content.getvalue())
