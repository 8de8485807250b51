"""Write tar shards that the webdataset library reads, with an index for random access.

    write_shards(read_manifest("train.csv"), Path("shards"), "train")   # train.index.json
    hiera-video train … data.train=shards/train.index.json

    train.index.json     the index (see manifest/tar_index.py), a function of the shards' content
    .train.sources.json  what they were made of, by which the next run skips finished shards
    train-000000.tar     0000000_abseiling_a.mp4   the file's bytes, unchanged
                         0000000_abseiling_a.cls   its class index
                         0000000_abseiling_a.json  its original name, row, label and segments

The content of all shards is planned before anything is written. So an interrupted run resumes
after its last complete shard, and equal videos give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from hiera_video.data.manifest.record import Label, Manifest, Record
from hiera_video.data.manifest.tar_index import INDEX_SUFFIX
from hiera_video.errors import ConfigError, ManifestError
from hiera_video.utils.atomic_files import atomic_file, write_atomic
from hiera_video.utils.resumable import exclusive
from hiera_video.utils.text_files import encode_json, read_json

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
LARGEST_FILE = 8**11 - 1
"""Largest size in bytes that the octal digits of a tar header can hold."""
LONGEST_STEM = 64
"""Characters of a video's name in the shard: with number and suffix below a header's 100 bytes."""
SHARD_BYTES = 1 << 30
CHUNK_BYTES = 1 << 20

Progress = Callable[[Sequence["TarShard"]], Iterable["TarShard"]]


@dataclass(frozen=True, kw_only=True)
class TarEntry:
    """One video of a shard and the small files that follow it."""

    source: str
    member: str
    size: int
    sidecars: list[tuple[str, bytes]]
    """Name and content of each."""

    @property
    def tar_bytes(self) -> int:
        """Bytes in the shard, headers and padding included."""
        return _padded(self.size) + sum(_padded(len(content)) for _, content in self.sidecars)


@dataclass
class TarShard:
    """Planned content of one tar file."""

    name: str
    entries: list[TarEntry] = field(default_factory=list)
    size: int = len(END)

    def add(self, entry: TarEntry) -> int:
        """Append an entry and return the offset of the video's bytes."""
        offset = self.size - len(END) + BLOCK
        self.entries.append(entry)
        self.size += entry.tar_bytes
        return offset

    def write(self, out: BinaryIO) -> None:
        """Write the tar file.

        Raises:
            ManifestError: A video has changed its size since it was planned.
        """
        for entry in self.entries:
            out.write(_tar_header(entry.member, entry.size))
            copied = 0
            with open(entry.source, "rb") as file:  # noqa: PTH123 (a hot path)
                while chunk := file.read(CHUNK_BYTES):
                    copied += len(chunk)
                    out.write(chunk)
            if copied != entry.size:
                raise ManifestError(
                    f"{entry.source}: had {entry.size} bytes and now has {copied}; wait until its "
                    "download is complete, and run the command again"
                )
            out.write(bytes(-entry.size % BLOCK))
            for name, content in entry.sidecars:
                out.write(_tar_header(name, len(content)) + content + bytes(-len(content) % BLOCK))
        out.write(END)


def write_shards(
    manifest: Manifest,
    folder: Path,
    name: str,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = lambda shards: shards,
) -> Path:
    """Write the videos of a manifest into tar shards, and the index of the shards.

    Complete shards of an earlier run are kept.

    Args:
        manifest: Videos; each must be a file.
        folder: Output folder.
        name: Name of the shards, `name-000000.tar` …, and of the index, `name.index.json`.
        shard_bytes: Largest size of a shard; a larger video gets a shard of its own.
        progress: Wraps the sequence of shards, to show progress.

    Returns:
        Path of the index.

    Raises:
        ConfigError: The folder has shards of this name with other content, or another process
            writes them.
        ManifestError: A video is missing, is not a file, or changes while it is copied.
    """
    shards, records, digest = _plan_shards(manifest, name, shard_bytes)
    folder.mkdir(parents=True, exist_ok=True)
    busy = (
        f"{folder}: another command is writing the shards {name!r} there; wait for its end or "
        "choose another folder"
    )
    with exclusive(folder / f".{name}.lock", busy):
        return _write(manifest, folder, name, shards, records, digest, progress)


def _write(
    manifest: Manifest,
    folder: Path,
    name: str,
    shards: list[TarShard],
    records: list[list[Any]],
    digest: str,
    progress: Progress,
) -> Path:
    index, sources = folder / f"{name}{INDEX_SUFFIX}", folder / f".{name}.sources.json"
    journal = folder / f".{name}.unfinished.json"
    _check_folder(folder, name, (sources, journal, index), digest)
    if not index.is_file():
        write_atomic(journal, json.dumps({"made_of": digest}))
    for shard in progress(shards):
        path = folder / shard.name
        if not (path.is_file() and path.stat().st_size == shard.size):
            with atomic_file(path) as file:
                shard.write(file)
    content = {
        "class_names": manifest.class_names,
        "multi_label": manifest.multi_label,
        "source": Path(manifest.source).name,
        "shards": [(shard.name, shard.size) for shard in shards],
        "records": records,
    }
    # paths and dates of the videos stay out of the index: equal shards have equal indexes
    write_atomic(sources, json.dumps({"made_of": digest}))
    write_atomic(index, json.dumps(content, ensure_ascii=False))
    journal.unlink(missing_ok=True)
    return index


def _check_folder(folder: Path, name: str, records: Sequence[Path], digest: str) -> None:
    """Check that shards of this name in the folder, if any, have the planned content.

    Args:
        folder: Folder of the shards.
        name: Name of the shards.
        records: Files that may tell what the shards are made of; the first that exists counts. An
            index tells it only if an earlier version wrote it.
        digest: Digest of the planned content.
    """
    found = next((read_json(path) for path in records if path.is_file()), None)
    if found is None:
        if shards := sorted(folder.glob(f"{name}-[0-9]*.tar")):
            raise ConfigError(
                f"{shards[0]}: exists without an index; remove it or choose another folder"
            )
    elif not isinstance(found, dict) or found.get("made_of") != digest:
        raise ConfigError(
            f"{folder}: has shards '{name}' of other videos or of another shard size; "
            "remove them or choose another folder"
        )


# -- plan --------------------------------------------------------------------------------------


def _plan_shards(
    manifest: Manifest, name: str, shard_bytes: int
) -> tuple[list[TarShard], list[list[Any]], str]:
    """Return the shards, the records of the index, and a digest of everything they depend on."""
    if not manifest.records:
        raise ManifestError(f"{manifest.source}: has no videos to write into shards")
    records_of: dict[str, list[Record]] = {}  # a video with several segments is stored once
    for record in manifest.records:
        records_of.setdefault(record.path, []).append(record)
    settings = (manifest.class_names, manifest.multi_label, shard_bytes)
    digest = hashlib.blake2b(repr(settings).encode(), digest_size=16)
    shards: list[TarShard] = []
    positions: dict[str, tuple[int, str, int, int]] = {}
    for number, (path, records) in enumerate(records_of.items()):
        status = _file_status(records[0])
        facts = (path, status.st_size, status.st_mtime_ns, list(map(_label_and_segment, records)))
        digest.update(repr(facts).encode())
        stem = re.sub(r"[^A-Za-z0-9_-]", "_", Path(path).stem)[:LONGEST_STEM]
        key = f"{number:07d}_{stem}"
        entry = TarEntry(
            source=path,
            member=key + Path(path).suffix.lower(),
            size=status.st_size,
            sidecars=_sidecars(key, path, records, manifest),
        )
        if not shards or (shards[-1].entries and shards[-1].size + entry.tar_bytes > shard_bytes):
            shards.append(TarShard(f"{name}-{len(shards):06d}.tar"))
        offset = shards[-1].add(entry)
        positions[path] = (len(shards) - 1, entry.member, offset, entry.size)
    rows = [[*positions[record.path], *_label_and_segment(record)] for record in manifest.records]
    return shards, rows, digest.hexdigest()


def _label_and_segment(record: Record) -> tuple[Label, float | None, float | None]:
    return record.label, record.start_seconds, record.end_seconds


def _file_status(record: Record) -> os.stat_result:
    if record.shard_video is not None:
        raise ManifestError(
            f"{record.path}: is in a shard already; pass the list that the shards were made of"
        )
    try:
        status = os.stat(record.path)  # noqa: PTH116 (a hot path)
    except OSError as error:
        raise ManifestError(
            f"{record.path}: cannot be put into a shard ({error.strerror}); "
            "hiera-video check-data writes a list without such videos"
        ) from error
    if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_FILE:
        raise ManifestError(
            f"{record.path}: is not a video file below 8 GiB, and shards hold only those; "
            "remove it from the list"
        )
    return status


def _sidecars(
    key: str, path: str, records: list[Record], manifest: Manifest
) -> list[tuple[str, bytes]]:
    """Return names and contents of a video's `.cls` and `.json` files, as webdataset has them."""
    facts: dict[str, Any] = {"file": Path(path).name}
    columns = ("row", "label", "start_seconds", "end_seconds")
    entries = [dict(zip(columns, (r.row, *_label_and_segment(r)))) for r in records]
    facts |= entries[0] if len(entries) == 1 else {"records": entries}
    files = []
    label = records[0].label
    if isinstance(label, int) and all(record.label == label for record in records):
        files.append((f"{key}.cls", str(label).encode()))
        if manifest.class_names is not None:
            facts["class"] = manifest.class_names[label]
    present = {name: value for name, value in facts.items() if value is not None}
    files.append((f"{key}.json", encode_json(json.dumps(present, ensure_ascii=False))))
    return files


def _padded(size: int) -> int:
    """Return the bytes that a file occupies in a tar file, with its header."""
    return BLOCK + -(-size // BLOCK) * BLOCK


def _tar_header(name: str, size: int) -> bytes:
    header = tarfile.TarInfo(name)
    header.size = size
    return header.tobuf(tarfile.USTAR_FORMAT)
