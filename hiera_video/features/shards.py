"""One shard: what it is made of, how it is made, who makes it. An engine only says which comes when.

A shard is a stretch of the manifest of a fixed number of videos, and its bytes follow from those videos, the
configuration and the weights: its clips fill batches of one shape in the order of the manifest, whoever computes it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from hiera_video.data.dataset import UnreadableVideo
from hiera_video.data.loading.quarantine import QuarantinePolicy
from hiera_video.data.manifest.record import Record
from hiera_video.features.config import FeaturesConfig
from hiera_video.features.extract import BatchRunner, check_finite
from hiera_video.features.shard_files import INDEX, ShardFiles, checksum, write_file
from hiera_video.features.shard_reading import ReadWindows, VideoPart


@dataclass(frozen=True, kw_only=True)
class Work:
    """All that an engine has to know, but for the model."""

    records: tuple[Record, ...]
    """The manifest."""
    shard_videos: int
    """Videos of a shard; the last one may have fewer."""
    folder: str
    """Output."""
    config: FeaturesConfig
    read: ReadWindows
    quarantine: QuarantinePolicy
    workers: int
    """Loader processes of each process that computes."""

    @property
    def num_shards(self) -> int:
        """Of the whole manifest."""
        return math.ceil(len(self.records) / self.shard_videos)

    def shard(self, number: int) -> Sequence[Record]:
        """The videos of one shard."""
        return self.records[number * self.shard_videos : (number + 1) * self.shard_videos]

    @property
    def files(self) -> ShardFiles:
        """The output folder."""
        return ShardFiles(self.folder)


class LateFailure(Exception):
    """A long video turned out to be broken after its first windows were computed: the shard is made again without it."""

    def __init__(self, video: UnreadableVideo) -> None:
        super().__init__(video.message)
        self.video = video


def run_shard(
    work: Work,
    number: int,
    videos: Iterable[VideoPart | UnreadableVideo],
    runner: BatchRunner,
    known: dict[int, UnreadableVideo],
) -> dict[str, Any]:
    """Compute shard `number` from its videos, put it on disk, return what its JSON says.

    known: videos that are broken, whatever `videos` says of them (see `LateFailure`, which this may raise after it has
    taken all `videos`).
    """
    entries: list[dict[str, Any]] = []
    late: UnreadableVideo | None = None
    for video in videos:
        found = known.get(video.row, video)
        if isinstance(found, UnreadableVideo):
            begun = bool(entries) and entries[-1]["row"] == found.row
            if begun and entries[-1]["status"] == "ok":
                late = late or found
            elif not begun:
                entries.append(
                    _entry(
                        found, number, status="broken", reason=found.reason, message=found.message
                    )
                )
        elif found.total == 0:
            entries.append(_entry(found, number, status="short"))
        elif late is None:
            for stretch, clip in zip(found.stretches, found.clips):
                runner.add(clip)
                times: dict[str, Any] = {
                    "start_seconds": stretch.start_seconds,
                    "end_seconds": stretch.end_seconds,
                }
                entries.append(
                    _entry(found, number, clip=stretch.number, tail=stretch.tail, **times)
                )
    features = runner.finish()
    if late is not None:
        raise LateFailure(late)
    computed = [entry for entry in entries if entry["status"] == "ok"]
    for offset, entry in enumerate(computed):
        entry |= {
            "offset": offset,
            "checksum": checksum([values[offset] for values in features.values()]),
        }
    check_finite(features, work.config, f"shard {number} ({_names(work.shard(number))})")
    table = pa.Table.from_pylist(entries, schema=INDEX)
    if work.config.format != "safetensors":
        _write_arrays(work, computed, features)
    return work.files.write(number, table, features)


def _entry(
    video: VideoPart | UnreadableVideo, number: int, *, status: str = "ok", **facts: Any
) -> dict[str, Any]:
    known = {
        "path": video.path,
        "row": video.row,
        "clip": 0,
        "tail": False,
        "shard": number,
        "status": status,
    }
    return {**dict.fromkeys(INDEX.names), **known, **facts}


def _names(records: Sequence[Record]) -> str:
    return f"{records[0].path} … {records[-1].path}"


def _write_arrays(work: Work, entries: list[dict[str, Any]], features: dict[str, Tensor]) -> None:
    """A file a video, for those who read that."""
    rows = np.array([entry["row"] for entry in entries], np.int64)
    kind = work.config.format
    for row in dict.fromkeys(rows.tolist()):
        (places,) = (rows == row).nonzero()
        mine = [entries[place] for place in places]
        arrays = {
            name: values[places[0] : places[-1] + 1].numpy() for name, values in features.items()
        }
        path = work.files.array_path(row, mine[0]["path"], kind)
        content = io.BytesIO()
        if kind == "npy":
            np.save(content, next(iter(arrays.values())))
        else:
            times = {
                key: np.array([entry[key] for entry in mine])
                for key in ("start_seconds", "end_seconds", "tail")
            }
            contents: dict[str, Any] = {**arrays, **times}
            np.savez(content, **contents)
        write_file(path, content.getvalue())
