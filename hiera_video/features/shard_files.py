"""Files of a feature store.

features.json                        settings that determine every byte, and videos per shard
shards/00000/00000012.safetensors    stage4: [clips, …], clips in the order of the index
shards/00000/00000012.parquet        the index: one row per clip, or one per video without clips
shards/00000/00000012.json           size and SHA-256 of both; written last: the shard is finished
arrays/00000/00000340_name.npz       with features.format=npy or npz: also one file per video
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import torch
from safetensors.torch import save
from torch import Tensor

from hiera_video.data.manifest.record import Record
from hiera_video.errors import FeatureError
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.resumable import ENTRIES_PER_FOLDER, ShardFolder, file_state

METADATA = "features.json"
FORMAT = 1
"""Version of the file formats."""
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""Errors of reading a damaged JSON file."""
METADATA_TYPES = {"identity": dict, "names": dict, "dtype": str, "videos": int}
"""Keys of `features.json` without which a store cannot be read."""

INDEX = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),  # of the manifest
        pa.field("clip", pa.int32(), nullable=False),  # number of the window in its video
        pa.field("start_seconds", pa.float64()),  # on the file's clock
        pa.field("end_seconds", pa.float64()),
        pa.field("tail", pa.bool_(), nullable=False),  # shorter than a full window
        # ok; broken: unreadable; short: shorter than a window, and tails are dropped
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),  # of an unreadable video: one of video.reader.REASONS
        pa.field("message", pa.string()),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("offset", pa.int32()),  # position in the shard's tensors; null without a feature
        pa.field("checksum", pa.string()),  # of the feature's bytes, see `checksum`
    ]
)


class ShardFiles(ShardFolder):
    """The files in one output folder."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__(Path(folder), marker="json")

    def array_path(self, row: int, video: str, suffix: str) -> Path:
        """Return the path of the array file of one video (`features.format`)."""
        name = f"{row:08d}_{Path(video).stem}.{suffix}"
        return self.folder / "arrays" / f"{row // ENTRIES_PER_FOLDER:05d}" / name

    @property
    def exists(self) -> bool:
        """True once `features.json` is written."""
        return (self.folder / METADATA).exists()

    def read_metadata(self) -> dict[str, Any]:
        """Return the content of `features.json`.

        Raises:
            FeatureError: It is missing, unreadable, or of another format version.
        """
        path = self.folder / METADATA
        try:
            metadata: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError as error:
            raise FeatureError(
                f"{self.folder}: no {METADATA} in this folder; give the output folder of "
                "hiera-video extract"
            ) from error
        except (OSError, ValueError, RecursionError) as error:
            raise FeatureError(
                f"{path}: cannot be read ({error}); extract into another folder"
            ) from error
        if not isinstance(metadata, dict):
            raise FeatureError(f"{path}: damaged (no map of settings); extract into another folder")
        if metadata.get("format") != FORMAT:
            raise FeatureError(
                f"{path}: has format {metadata.get('format')}, this version reads {FORMAT}; "
                "extract again"
            )
        for key, kind in METADATA_TYPES.items():
            if not isinstance(metadata.get(key), kind):
                raise FeatureError(
                    f"{path}: damaged ({key}={metadata.get(key)!r}); extract into another folder"
                )
        return metadata

    def create(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """Write `features.json` unless another process already has; return its content."""
        text = json.dumps({"format": FORMAT, **metadata}, indent=1, sort_keys=True) + "\n"
        write_file(self.folder / METADATA, text.encode(), replace=False)
        return self.read_metadata()

    def extend(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """Replace `features.json` of a store that grows by new videos; return its content."""
        text = json.dumps(metadata, indent=1, sort_keys=True) + "\n"
        write_file(self.folder / METADATA, text.encode())
        return metadata

    def read_summary(self, number: int) -> dict[str, Any]:
        """Return the JSON of a finished shard: its counts, and size and SHA-256 of its files.

        Raises:
            FeatureError: The file is damaged.
        """
        path = self.path(number, self.marker)
        try:
            summary: dict[str, Any] = json.loads(path.read_text())
            counts = [summary[key] for key in ("clips", "videos", "broken")]
            if not all(isinstance(count, int) for count in counts):
                raise ValueError(f"counts {counts}")
            [entry["sha256"] for entry in summary["files"].values()]
        except DAMAGE as error:
            raise FeatureError(
                f"{path}: damaged ({error}); delete it and extract again to recompute the shard"
            ) from error
        return summary

    def discard_unreadable(self) -> None:
        """Mark the shards with unreadable videos as unfinished, so that they are computed again."""
        for number in self.finished():
            if self.read_summary(number)["broken"]:
                self.path(number, self.marker).unlink()

    def clear_leftovers(self, number: int, rows: range) -> None:
        """Delete the temporary files that a killed process left of a shard and its array files.

        Only the process that has claimed the shard may call this.
        """
        self.remove_partial(number)
        some = (*rows[::ENTRIES_PER_FOLDER], rows[-1])  # at least one row of every subfolder
        for folder in {self.array_path(row, "", "npy").parent for row in some}:
            for path in folder.glob(".*.partial"):
                if path.name[1:9].isdigit() and int(path.name[1:9]) in rows:
                    path.unlink(missing_ok=True)

    def write(
        self,
        number: int,
        index: pa.Table,
        features: Mapping[str, Tensor],
        states: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Write a finished shard and return its summary (see `read_summary`).

        Args:
            number: Number of the shard.
            index: The shard's rows of the index, with the schema `INDEX`.
            features: `stage<n>`: [clips, …], in the order of the index.
            states: State of the file of each video before it was read, see `video_state`.

        Raises:
            FeatureError: A file cannot be written.
        """
        assert index.schema.equals(INDEX), index.schema
        table = pa.BufferOutputStream()
        parquet.write_table(index, table)
        contents = {
            "safetensors": save({name: value.contiguous() for name, value in features.items()}),
            "parquet": table.getvalue().to_pybytes(),
        }
        files = {}
        for suffix, content in contents.items():
            path = self.path(number, suffix)
            write_file(path, content)
            digest = hashlib.sha256(content).hexdigest()
            files[path.name] = {"bytes": len(content), "sha256": digest}
        status = index.column("status").to_pylist()
        summary = {
            "shard": number,
            "clips": status.count("ok"),
            "videos": len(set(index.column("row").to_pylist())),
            "broken": status.count("broken"),
            "files": files,
            **({"states": list(states)} if states else {}),
        }
        write_file(self.path(number, self.marker), (json.dumps(summary, indent=1) + "\n").encode())
        return summary


def video_state(record: Record) -> str:
    """Return what changes if a video is replaced, or becomes readable: `size:mtime_ns`."""
    path = record.shard_video.shard if record.shard_video else record.path
    readable = os.access(path, os.R_OK)
    return ":".join(map(str, file_state(path))) if readable else ""


def checksum(tensors: Sequence[Tensor]) -> str:
    """Return the BLAKE2b digest (8 bytes, in hex) of one clip's features, stage after stage."""
    digest = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_file(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write a file atomically and create the folders above it.

    Args:
        path: The file.
        content: All of its bytes.
        replace: Overwrite an existing file; otherwise keep it.

    Raises:
        FeatureError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content, shared=True, replace=replace)
    except OSError as error:
        raise FeatureError(
            f"{path}: cannot be written ({error.strerror}); free disk space or choose another "
            "output; finished shards are kept"
        ) from error
