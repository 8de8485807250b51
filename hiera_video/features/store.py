"""Reads what `tools/extract_features.py` wrote.

store = hv.FeatureStore("features/")
store["/data/a.mp4"].features        # [n, 768], one row a window; .start_seconds [n], .end_seconds [n], .tail [n]
store[12]                            # the same, by row of the manifest
store.matrix()                       # [N, 768] of all windows; row i is row i of store.clips()
store.table()                        # the whole index, broken videos with their reasons included
DataLoader(store.dataset(), 256)     # {"features": [256, 768], "row": [256], "start_seconds": …}
"""

from __future__ import annotations

import hashlib
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
from hiera_video.features.shard_files import INDEX, ShardFiles

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
OPEN_SHARDS = 32


@dataclass(frozen=True, kw_only=True)
class VideoFeatures:
    """All windows of one video, in order of time."""

    path: str
    row: int
    """Of the manifest."""
    by_name: dict[str, Tensor]
    """`stage4`: [n, C] where pooled, [n, t, C] (temporal) or [n, t, h, w, C] (maps in spatial order)."""
    start_seconds: NDArray[np.float64]
    """[n] on the file's clock."""
    end_seconds: NDArray[np.float64]
    """[n]"""
    tail: NDArray[np.bool_]
    """[n] windows that the video's end cut short."""
    status: str
    """`ok`; `broken`: no features, see `reason`; `short`: no whole window, and tails were dropped."""
    reason: str | None
    """Of a broken video: a word of `data.decode.protocol.REASONS`."""
    message: str | None

    @property
    def features(self) -> Tensor:
        """[n, …] of the last of the extracted stages."""
        return self.by_name[max(self.by_name)]


class FeatureStore(Dataset[VideoFeatures]):
    """The finished shards of one folder; a dataset of videos, by row of the manifest.

    Raises `FeatureError` where the folder holds no features. An unfinished extraction is readable as far as it is.
    """

    def __init__(self, path: str | Path) -> None:
        self._files = ShardFiles(path)
        self.notes = self._files.notes()
        """`features.json`: `identity` (model, weights' hash, windows …), `names`, `dtype`, `videos`."""
        self.names = tuple(self.notes["names"])
        """`stage1` … `stage4`, those that were extracted, in this order."""
        self.dtype = DTYPES[self.notes["dtype"]]
        parts = [
            _read_index(self._files.path(number, "parquet")) for number in self._files.finished()
        ]
        self._table = pa.concat_tables(parts) if parts else INDEX.empty_table()
        rows = self._table.column("row").to_numpy()
        starts = np.flatnonzero(np.diff(rows, prepend=-1)) if len(rows) else np.zeros(0, np.int64)
        # a video's rows stand together, in order of time
        self._spans = dict(
            zip(rows[starts].tolist(), zip(starts.tolist(), [*starts[1:].tolist(), len(rows)]))
        )
        self._open = lru_cache(maxsize=OPEN_SHARDS)(self._open_shard)

    @property
    def num_videos(self) -> int:
        """Videos of the manifest, extracted or not."""
        return int(self.notes["videos"])

    @property
    def is_complete(self) -> bool:
        """Every video of the manifest has its rows."""
        return len(self._spans) == self.num_videos

    def __len__(self) -> int:
        """Videos that are there, broken ones included."""
        return len(self._spans)

    def __iter__(self) -> Iterator[VideoFeatures]:
        return (self[row] for row in self._spans)

    def __getitem__(self, video: int | str | Path) -> VideoFeatures:
        """The video by its row in the manifest, or by its path. Raises `FeatureError` where it is not there (yet)."""
        row = int(video) if isinstance(video, int | np.integer) else self._row_of(str(video))
        if row not in self._spans:
            if not 0 <= row < self.num_videos:
                raise IndexError(f"row {row}: the manifest has rows 0 to {self.num_videos - 1}")
            raise FeatureError(
                f"{self._files.folder}: row {row} is not extracted yet; run the same command to its end"
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
        """The index: see `features.shard_files.INDEX`. Broken videos have a row with status and reason."""
        return self._table

    def clips(self) -> pa.Table:
        """The index's rows that have features, in the order of `matrix` and `dataset`."""
        return self._table.filter(compute.equal(self._table.column("status"), "ok"))

    def matrix(self, name: str | None = None) -> Tensor:
        """[N, …]: the features of every window, in the order of `clips()`; of the last stage where not named."""
        return self._features(self._known(name), self.clips())

    def dataset(self, name: str | None = None) -> ClipDataset:
        """One item a window: `{"features", "row", "start_seconds", "end_seconds"}`, for a `DataLoader`."""
        return ClipDataset(self, self._known(name))

    def verify(self) -> list[str]:
        """Files whose bytes are not those that were written; empty where all is well."""
        damaged = []
        for number in self._files.finished():
            for name, recorded in (self._files.seal(number) or {})["files"].items():
                path = self._files.path(number, name.rpartition(".")[2])
                if (
                    not path.is_file()
                    or hashlib.sha256(path.read_bytes()).hexdigest() != recorded["sha256"]
                ):
                    damaged.append(str(path))
        return damaged

    def _known(self, name: str | None) -> str:
        name = self.names[-1] if name is None else name
        if name not in self.names:
            raise FeatureError(
                f"{self._files.folder}: holds no {name!r}; choose one of {', '.join(self.names)}"
            )
        return name

    def _row_of(self, path: str) -> int:
        found = self._by_path().get(path) or self._by_path().get(os.path.abspath(path)) or []  # noqa: PTH100 (links stay)
        if len(found) != 1:
            paths = self._by_path()
            named = [known for known in paths if Path(known).name == Path(path).name] or list(paths)
            such = f", such as {named[0]}" if named else ""
            missing = f"is not there; see .table().column('path') for what is{such}"
            why = f"stands in rows {found}; take one of these" if found else missing
            raise FeatureError(f"{self._files.folder}: {path} {why}")
        return found[0]

    def _by_path(self) -> dict[str, list[int]]:
        if not hasattr(self, "_paths"):
            self._paths: dict[str, list[int]] = {}
            paths = self._table.column("path")
            for row, (first, _) in self._spans.items():
                self._paths.setdefault(paths[first].as_py(), []).append(row)
        return self._paths

    def _features(self, name: str, clips: pa.Table) -> Tensor:
        """[n, …] of some of the index's rows, which must be in its order."""
        shards, offsets = (clips.column(key).to_numpy() for key in ("shard", "offset"))
        cuts = [0, *(np.flatnonzero(np.diff(shards)) + 1).tolist(), len(shards)]
        parts = [torch.empty(0, *self.notes["names"][name], dtype=self.dtype)]
        for first, stop in pairwise(cuts if len(shards) else []):
            low, high = int(offsets[first]), int(offsets[stop - 1]) + 1
            assert high - low == stop - first, "a shard's clips are in the order of the index"
            parts.append(self._open(int(shards[first])).get_slice(name)[low:high])
        return torch.cat(parts)

    def _open_shard(self, number: int) -> Any:
        path = self._files.path(number, "safetensors")
        try:
            return safe_open(path, framework="pt")
        except Exception as error:  # safetensors and the system raise their own kinds
            raise FeatureError(
                f"{path}: cannot be read ({error}); delete its .json and extract again"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {
            key: value for key, value in self.__dict__.items() if key != "_open"
        }  # open files stay here

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open = lru_cache(maxsize=OPEN_SHARDS)(self._open_shard)


def _read_index(path: Path) -> pa.Table:
    """One shard's part of the index."""
    try:
        return parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise FeatureError(
            f"{path}: cannot be read ({error}); delete its .json and extract again"
        ) from error


class ClipDataset(Dataset[dict[str, Any]]):
    """The windows of a store, one an item."""

    def __init__(self, store: FeatureStore, name: str) -> None:
        self._store = store
        self._name = name
        clips = store.clips()
        self._columns = {
            key: clips.column(key).to_numpy() for key in ("row", "start_seconds", "end_seconds")
        }
        self._places = clips.select(["shard", "offset"])

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index}: the store has {len(self)}")
        (features,) = self._store._features(self._name, self._places.slice(index, 1))
        return {
            "features": features,
            **{key: values[index] for key, values in self._columns.items()},
        }
