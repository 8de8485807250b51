"""Read the features that `hiera-video extract` wrote.

store = hv.FeatureStore("features/")
store["/data/a.mp4"].features        # [n, 768], one row per window
store[12].start_seconds              # [n], a video by its row of the manifest
store.matrix()                       # [N, 768] of all windows; row i is row i of store.clips()
store.table()                        # the index, unreadable videos and their reasons included
DataLoader(store.dataset(), 256)     # {"features": [256, 768], "row": [256], …}
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.parquet as parquet
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor
from torch.utils.data import Dataset

from hiera_video.errors import FeatureError
from hiera_video.features.shard_files import INDEX, METADATA, ShardFiles
from hiera_video.utils.hashing import file_sha256
from hiera_video.utils.text_files import count_of, escape_names

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
OPEN_SHARDS = 32
MAX_INDEX_BYTES = 256 << 20
"""Size of the largest index of a shard in memory."""
ROW_BYTES = 64
"""Bytes of a row of an index without its texts."""
"""Shard files that a store keeps open."""


@dataclass(frozen=True, kw_only=True)
class VideoFeatures:
    """Features of all windows of one video, in order of time."""

    path: str
    """Path of the video as in the manifest."""
    row: int
    """Row of the manifest, counted from 0."""
    by_name: dict[str, Tensor]
    """`stage4`: [n, C] if pooled, [n, t, C] (`temporal`) or [n, t, h, w, C] (maps in spatial
    order), in the store's dtype."""
    start_seconds: NDArray[np.float64]
    """[n] start of each window, in seconds on the file's clock."""
    end_seconds: NDArray[np.float64]
    """[n] end of each window, in seconds on the file's clock."""
    tail: NDArray[np.bool_]
    """[n] True for a window that the end of the video shortens."""
    status: str
    """`ok`; `broken`: unreadable, see `reason`; `short`: shorter than a window, and tails were
    dropped."""
    reason: str | None
    """Why the video is unreadable, one of `hiera_video.video.reader.REASONS`; otherwise None."""
    message: str | None
    """The full message of an unreadable video; otherwise None."""

    @property
    def features(self) -> Tensor:
        """Features of the last of the extracted stages, [n, …]."""
        return self.by_name[max(self.by_name)]


class FeatureStore(Dataset[VideoFeatures]):
    """Features in an output folder of `extract_features`: a dataset of videos, by manifest row.

    A store opened during an extraction has the shards that are finished at that time. Stores can be
    pickled, so they work with the workers of a `DataLoader`.

    Args:
        path: The output folder.

    Raises:
        FeatureError: The folder has no features, or files in it are damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self._files = ShardFiles(path)
        self.metadata = self._files.read_metadata()
        """Content of `features.json`: `identity` (model, digest of the weights, windows, …),
        `names`, `dtype`, `videos`, …"""
        self.names = tuple(self.metadata["names"])
        """Names of the extracted stages, `stage1` … `stage4`, ascending."""
        self.dtype = self._known_dtype()
        parts = [_read_index(self._files, number) for number in self._files.finished()]
        self._table = pa.concat_tables(parts) if parts else INDEX.empty_table()
        rows = self._table.column("row").to_numpy()
        # the index rows of a video are adjacent and in order of time
        starts = np.flatnonzero(np.diff(rows, prepend=-1)) if len(rows) else np.zeros(0, np.int64)
        self._spans = dict(
            zip(rows[starts].tolist(), zip(starts.tolist(), [*starts[1:].tolist(), len(rows)]))
        )
        self._open = lru_cache(maxsize=OPEN_SHARDS)(self._open_shard)

    @property
    def num_videos(self) -> int:
        """Number of videos in the manifest, extracted or not."""
        return int(self.metadata["videos"])

    @property
    def is_complete(self) -> bool:
        """True if every video of the manifest has been processed."""
        return len(self._spans) == self.num_videos

    def __len__(self) -> int:
        """Return the number of videos in the store, unreadable ones included."""
        return len(self._spans)

    def __iter__(self) -> Iterator[VideoFeatures]:
        return (self[row] for row in self._spans)

    def __getitem__(self, video: int | str | Path) -> VideoFeatures:
        """Return the features of one video.

        Args:
            video: Row of the manifest, or path of the video.

        Returns:
            Its features; they are empty for an unreadable video.

        Raises:
            IndexError: The manifest has no such row.
            FeatureError: The video is not in the store (yet), or several rows have this path.
        """
        row = int(video) if isinstance(video, int | np.integer) else self._row_of(str(video))
        if row not in self._spans:
            if not 0 <= row < self.num_videos:
                raise IndexError(f"row {row}: the manifest has rows 0 to {self.num_videos - 1}")
            raise FeatureError(
                f"{self._files.folder}: row {row} is not extracted yet; run the same command again "
                "until it is complete"
            )
        first, stop = self._spans[row]
        part = self._table.slice(first, stop - first)
        facts = {
            name: part.column(name)[0].as_py() for name in ("path", "status", "reason", "message")
        }
        part = part.filter(compute.equal(part.column("status"), "ok"))
        return VideoFeatures(
            row=row,
            by_name={name: self._features(name, part) for name in self.names},
            start_seconds=part.column("start_seconds").to_numpy(),
            end_seconds=part.column("end_seconds").to_numpy(),
            tail=part.column("tail").to_numpy(),
            **facts,
        )

    def table(self) -> pa.Table:
        """Return the whole index: one row per window, or one per video without features.

        Columns: `path`, `row`, `clip`, `start_seconds`, `end_seconds`, `tail`, `status`, `reason`,
        `message`, `shard`, `offset`, `checksum`.
        """
        return self._table

    def paths(self) -> list[str]:
        """Return the path of each video in the store, by row."""
        column = self._table.column("path")
        return [column[first].as_py() for _, (first, _) in sorted(self._spans.items())]

    def clips(self) -> pa.Table:
        """Return the rows of the index that have features, in the order of `matrix`."""
        return self._table.filter(compute.equal(self._table.column("status"), "ok"))

    def matrix(self, name: str | None = None) -> Tensor:
        """Return the features of all windows.

        Args:
            name: Stage, such as `stage4`; None: the last of the extracted stages.

        Returns:
            Features [N, …] in the store's dtype; row i belongs to row i of `clips()`.

        Raises:
            FeatureError: The stage is not in the store, or a file is damaged.
        """
        return self._features(self._resolve_name(name), self.clips())

    def dataset(self, name: str | None = None) -> ClipDataset:
        """Return a dataset of windows for a `DataLoader`.

        Args:
            name: Stage, such as `stage4`; None: the last of the extracted stages.

        Returns:
            Items `{"features", "row", "start_seconds", "end_seconds"}` in the order of `clips()`.

        Raises:
            FeatureError: The stage is not in the store.
        """
        return ClipDataset(self, self._resolve_name(name))

    def verify(self) -> list[str]:
        """Compare all files with their recorded SHA-256; return the paths of damaged ones."""
        damaged = []
        for number in self._files.finished():
            for name, recorded in self._files.read_summary(number)["files"].items():
                path = self._files.path(number, name.rpartition(".")[2])
                if not path.is_file() or file_sha256(path) != recorded["sha256"]:
                    damaged.append(str(path))
        return damaged

    def _known_dtype(self) -> torch.dtype:
        names, dtype = self.metadata["names"], self.metadata["dtype"]
        shapes = all(isinstance(size, int) for shape in names.values() for size in shape)
        if dtype not in DTYPES or not names or not shapes:
            raise FeatureError(
                f"{self._files.folder / METADATA}: damaged (dtype={dtype!r}, names={names}); "
                "extract into another folder"
            )
        return DTYPES[dtype]

    def _resolve_name(self, name: str | None) -> str:
        name = self.names[-1] if name is None else name
        if name not in self.names:
            raise FeatureError(
                f"{self._files.folder}: has no {name!r}; choose one of {', '.join(self.names)}"
            )
        return name

    def _row_of(self, path: str) -> int:
        known, path = self._rows_by_path(), escape_names(path)
        rows = known.get(path) or known.get(os.path.abspath(path)) or []  # noqa: PTH100 (keeps links)
        if len(rows) == 1:
            return rows[0]
        if rows:
            raise FeatureError(
                f"{self._files.folder}: {path} is in rows {rows}; choose one of these"
            )
        similar = [other for other in known if Path(other).name == Path(path).name] or list(known)
        example = f", such as {similar[0]}" if similar else ""
        raise FeatureError(
            f"{self._files.folder}: {path} is not in the store; .table().column('path') lists the "
            f"videos{example}"
        )

    def _rows_by_path(self) -> dict[str, list[int]]:
        if not hasattr(self, "_paths"):
            self._paths: dict[str, list[int]] = {}
            paths = self._table.column("path")
            for row, (first, _) in self._spans.items():
                self._paths.setdefault(paths[first].as_py(), []).append(row)
        return self._paths

    def _features(self, name: str, clips: pa.Table) -> Tensor:
        """Read the features [n, …] of rows of the index, which must be in its order."""
        shards, offsets = (clips.column(key).to_numpy() for key in ("shard", "offset"))
        bounds = [0, *(np.flatnonzero(np.diff(shards)) + 1).tolist(), len(shards)]
        parts = [torch.empty(0, *self.metadata["names"][name], dtype=self.dtype)]
        for first, stop in pairwise(bounds if len(shards) else []):
            low, high = int(offsets[first]), int(offsets[stop - 1]) + 1
            part = self._read_part(int(shards[first]), name, low, high)
            expected = (stop - first, *self.metadata["names"][name])
            if part.shape != expected or part.dtype != self.dtype:
                raise _damaged(
                    self._files.path(int(shards[first]), "safetensors"),
                    f"its index promises {name} {list(expected)} at {low}, it has "
                    f"{list(part.shape)} in {part.dtype}",
                )
            parts.append(part)
        return torch.cat(parts)

    def _read_part(self, number: int, name: str, low: int, high: int) -> Tensor:
        shard = self._open(number)
        try:
            part: Tensor = shard.get_slice(name)[low:high]
        except Exception as error:  # safetensors raises several kinds of its own
            raise _damaged(self._files.path(number, "safetensors"), str(error)) from error
        return part

    def _open_shard(self, number: int) -> Any:
        path = self._files.path(number, "safetensors")
        try:
            return safe_open(path, framework="pt")
        except Exception as error:  # safetensors raises several kinds of its own
            raise _damaged(path, str(error)) from error

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open = lru_cache(maxsize=OPEN_SHARDS)(self._open_shard)


def _read_index(files: ShardFiles, number: int) -> pa.Table:
    path, summary = files.path(number, "parquet"), files.read_summary(number)
    try:
        table = _read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, str(error)) from error
    except KeyError as error:  # of `read_dictionary`
        raise _damaged(path, "has other columns") from error
    videos = compute.count_distinct(table.column("row")).as_py()
    offsets = table.filter(compute.equal(table.column("status"), "ok")).column("offset")
    complete = np.array_equal(offsets.to_numpy(), np.arange(summary["clips"]))
    if not complete or videos != summary["videos"]:
        raise _damaged(
            path,
            f"has {count_of(len(offsets), 'clip')} of {count_of(videos, 'video')}, its .json "
            f"says {summary['clips']} of "
            f"{summary['videos']}",
        )
    return table


def _read_table(path: Path) -> pa.Table:
    """Read an index; its sizes are checked first, as Parquet stores a repeated value once."""
    texts = [field.name for field in INDEX if pa.types.is_string(field.type)]
    with parquet.ParquetFile(path, read_dictionary=texts) as file:
        declared = file.metadata
        groups = (declared.row_group(number) for number in range(declared.num_row_groups))
        size = max(sum(group.total_byte_size for group in groups), declared.num_rows * ROW_BYTES)
        if size > MAX_INDEX_BYTES:
            raise _damaged(path, f"takes {size >> 20} MiB in memory")
        if not file.schema_arrow.names == INDEX.names:
            raise _damaged(path, "has other columns")
        table = file.read()  # each distinct text once
    fields = [field for field in table.schema if pa.types.is_dictionary(field.type)]
    size = sum(_text_bytes(table.column(field.name)) for field in fields)
    if size > MAX_INDEX_BYTES:
        raise _damaged(path, f"takes {size >> 20} MiB in memory")
    for field in fields:
        place = table.schema.get_field_index(field.name)
        plain = table.column(place).cast(field.type.value_type)
        table = table.set_column(place, field.with_type(plain.type), plain)
    if not table.schema.equals(INDEX):
        raise _damaged(path, "has other columns")
    return table


def _text_bytes(column: pa.ChunkedArray) -> int:
    """Return the bytes of a column of texts, each of which is stored once."""
    total = 0
    for chunk in column.chunks:
        lengths = compute.binary_length(chunk.dictionary).take(chunk.indices)
        total += compute.sum(lengths).as_py() or 0
    return total


def _damaged(path: Path, detail: str) -> FeatureError:
    return FeatureError(f"{path}: cannot be read ({detail}); delete its .json and extract again")


class ClipDataset(Dataset[dict[str, Any]]):
    """The windows of a store, one per item; see `FeatureStore.dataset`."""

    def __init__(self, store: FeatureStore, name: str) -> None:
        self._store = store
        self._name = name
        clips = store.clips()
        self._columns = {
            key: clips.column(key).to_numpy() for key in ("row", "start_seconds", "end_seconds")
        }
        self._locations = clips.select(["shard", "offset"])

    def __len__(self) -> int:
        return len(self._locations)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index}: the store has {len(self)}")
        (features,) = self._store._features(self._name, self._locations.slice(index, 1))
        return {
            "features": features,
            **{key: values[index] for key, values in self._columns.items()},
        }
