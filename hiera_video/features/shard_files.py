"""Extracted features on disk: what a folder holds, and how a shard gets there whole or not at all.

    features.json                        what decides every byte: model, weights' hash, windows, versions; videos a shard
    shards/00000/00000012.safetensors    stage4: [clips, …], the clips in the order of the index
    shards/00000/00000012.parquet        the index: a row a clip, and a row a video that has none, with the reason
    shards/00000/00000012.json           sizes and sha256 of the two; written last: the shard is done
    arrays/00000/00000340_name.npz       features.format=npy or npz: the same, a file a video

Each file is written under a temporary name, synced to disk, then renamed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import torch
from safetensors.torch import save
from torch import Tensor

from hiera_video.errors import FeatureError
from hiera_video.utils.atomic_files import write_atomic

NOTES = "features.json"
FORMAT = 1
IN_A_FOLDER = 1000
"""Shards of one folder: file systems slow down over folders of millions."""

INDEX = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),  # of the manifest
        pa.field("clip", pa.int32(), nullable=False),  # number of the window in its video
        pa.field("start_seconds", pa.float64()),  # on the file's clock
        pa.field("end_seconds", pa.float64()),
        pa.field("tail", pa.bool_(), nullable=False),  # shorter than a window
        pa.field(
            "status", pa.string(), nullable=False
        ),  # ok, broken, or short: no whole window, and tails are dropped
        pa.field("reason", pa.string()),  # of a broken video: one of data.decode.protocol.REASONS
        pa.field("message", pa.string()),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field(
            "offset", pa.int32()
        ),  # first dimension of the shard's tensors; null where there is no feature
        pa.field("checksum", pa.string()),  # of the feature's bytes, see `checksum`
    ]
)


class ShardFiles:
    """The files of one output folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, number: int, suffix: str) -> Path:
        """`path(12, "parquet")`: where a shard's file is."""
        return self.folder / "shards" / f"{number // IN_A_FOLDER:05d}" / f"{number:08d}.{suffix}"

    def array_path(self, row: int, video: str, suffix: str) -> Path:
        """Where a video's own file is, for those who asked for one."""
        return (
            self.folder
            / "arrays"
            / f"{row // IN_A_FOLDER:05d}"
            / f"{row:08d}_{Path(video).stem}.{suffix}"
        )

    @property
    def has_begun(self) -> bool:
        """Somebody has written `features.json`."""
        return (self.folder / NOTES).exists()

    def notes(self) -> dict[str, Any]:
        """`features.json`. Raises `FeatureError` where there is none, or one of another kind."""
        path = self.folder / NOTES
        try:
            found: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError as error:
            raise FeatureError(
                f"{self.folder}: holds no {NOTES}; give the output of tools/extract_features.py"
            ) from error
        except (OSError, ValueError) as error:
            raise FeatureError(
                f"{path}: cannot be read ({error}); extract into another folder"
            ) from error
        if found.get("format") != FORMAT:
            raise FeatureError(
                f"{path}: is of format {found.get('format')}, this version reads {FORMAT}; extract anew"
            )
        return found

    def begin(self, notes: dict[str, Any]) -> dict[str, Any]:
        """Write `features.json` unless another process was faster; returns what stands there."""
        text = json.dumps({"format": FORMAT, **notes}, indent=1, sort_keys=True) + "\n"
        write_file(self.folder / NOTES, text.encode(), replace=False)
        return self.notes()

    def finished(self) -> list[int]:
        """Numbers of the shards that are done, ascending."""
        return sorted(int(path.stem) for path in self.folder.glob("shards/*/*.json"))

    def seal(self, number: int) -> dict[str, Any] | None:
        """What a finished shard's JSON says; None where the shard is not finished."""
        try:
            found: dict[str, Any] = json.loads(self.path(number, "json").read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            path = self.path(number, "json")
            raise FeatureError(
                f"{path}: damaged ({error}); delete it, and extract again to make the shard anew"
            ) from error
        return found

    def clear_leftovers(self, number: int, rows: range) -> None:
        """Remove what a kill left of the shard and of its videos' own files; who calls this holds the shard's claim."""
        for path in self.path(number, "json").parent.glob(f".{number:08d}.*.partial"):
            path.unlink(missing_ok=True)
        for folder in {
            self.array_path(row, "", "npy").parent for row in (*rows[::IN_A_FOLDER], rows[-1])
        }:
            for path in folder.glob(".*.partial"):
                if path.name[1:9].isdigit() and int(path.name[1:9]) in rows:
                    path.unlink(missing_ok=True)

    def write(self, number: int, index: pa.Table, features: Mapping[str, Tensor]) -> dict[str, Any]:
        """Put a finished shard on disk; its JSON, written last, is returned."""
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
            files[path.name] = {
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        status = index.column("status").to_pylist()
        seal = {
            "shard": number,
            "clips": status.count("ok"),
            "videos": len(set(index.column("row").to_pylist())),
            "broken": status.count("broken"),
            "files": files,
        }
        write_file(self.path(number, "json"), (json.dumps(seal, indent=1) + "\n").encode())
        return seal


def checksum(tensors: Sequence[Tensor]) -> str:
    """BLAKE2b, 8 bytes in hex, of one clip's features, one stage after the other."""
    digest = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_file(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write a file atomically, with the folders above it. Raises `FeatureError` if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content, shared=True, replace=replace)
    except OSError as error:
        raise FeatureError(
            f"{path}: cannot be written ({error.strerror}); free disk space or choose another output; finished shards "
            "are kept"
        ) from error
