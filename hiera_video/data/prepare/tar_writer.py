"""Tar shards that the webdataset library reads as they are, with an index for random access (see `shards_index`).

    write_shards(read_manifest("train.csv"), Path("shards"), "train")   # shards/train-000000.tar …, train.index.json
    python tools/train_net.py … data.train=shards/train.index.json

    train-000000.tar     0000000_abseiling_a.mp4   the file's bytes, as they are
                         0000000_abseiling_a.cls   its class index
                         0000000_abseiling_a.json  where it comes from, and its records where it has several

What each shard holds is worked out before anything is written, so that a run that was killed goes on after its last
complete shard, and the same videos give the same bytes.
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
from hiera_video.utils.text_files import read_json

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
LARGEST = 8**11 - 1  # what a tar header's twelve octal digits hold
SHARD_BYTES = 1 << 30
LONGEST_STEM = 64  # with number and suffix well under the 100 bytes of a header's name
CHUNK = 1 << 20

Progress = Callable[[Sequence["TarShard"]], Iterable["TarShard"]]


@dataclass
class TarShard:
    """What one tar file will hold."""

    name: str
    files: list[tuple[str, str, int, list[tuple[str, bytes]]]] = field(default_factory=list)
    """Source path, name, size; names and contents of the small files behind it."""
    size: int = len(END)


def write_shards(
    manifest: Manifest,
    folder: Path,
    name: str,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = lambda shards: shards,
) -> Path:
    """Write `folder/name-000000.tar` … of at most `shard_bytes` (more where one video is larger), and the index; returns
    the index's path. `ManifestError` names a video that is no file, or changes while it is copied."""
    shards, entries, made_of = _plan(manifest, name, shard_bytes)
    folder.mkdir(parents=True, exist_ok=True)
    index, journal = folder / f"{name}{INDEX_SUFFIX}", folder / f".{name}.unfinished.json"
    known = next((read_json(path) for path in (index, journal) if path.is_file()), None)
    if known is None and (litter := sorted(folder.glob(f"{name}-[0-9]*.tar"))):
        raise ConfigError(
            f"{litter[0]}: is there already, without an index; remove it or choose another folder"
        )
    if known is not None and (not isinstance(known, dict) or known.get("made_of") != made_of):
        raise ConfigError(
            f"{folder}: holds shards '{name}' of other videos or another shard size; remove them or choose another folder"
        )
    if not index.is_file():
        write_atomic(journal, json.dumps({"made_of": made_of}))
    for shard in progress(shards):
        path = folder / shard.name
        if not (path.is_file() and path.stat().st_size == shard.size):
            with atomic_file(path) as file:
                _write(shard, file)
    content = {
        "class_names": manifest.class_names,
        "multi_label": manifest.multi_label,
        "source": manifest.source,
        "made_of": made_of,
        "shards": [(shard.name, shard.size) for shard in shards],
        "records": entries,
    }
    write_atomic(index, json.dumps(content, ensure_ascii=False))
    journal.unlink(missing_ok=True)
    return index


def _facts(record: Record) -> tuple[Label, float | None, float | None]:
    return record.label, record.start_seconds, record.end_seconds


def _plan(
    manifest: Manifest, name: str, shard_bytes: int
) -> tuple[list[TarShard], list[list[Any]], str]:
    """The shards, the index's records, and a digest of all that they are made of."""
    if not manifest.records:
        raise ManifestError(f"{manifest.source}: holds no videos to write into shards")
    of_path: dict[str, list[Record]] = {}  # a video with several stretches is stored once
    for record in manifest.records:
        of_path.setdefault(record.path, []).append(record)
    digest = hashlib.blake2b(
        repr((manifest.class_names, manifest.multi_label, shard_bytes)).encode(), digest_size=16
    )
    shards: list[TarShard] = []
    places: dict[str, tuple[int, str, int, int]] = {}
    for number, (path, records) in enumerate(of_path.items()):
        facts = _stat(records[0])
        digest.update(
            repr(
                (path, facts.st_size, facts.st_mtime_ns, [_facts(record) for record in records])
            ).encode()
        )
        key = f"{number:07d}_{re.sub(r'[^A-Za-z0-9_-]', '_', Path(path).stem)[:LONGEST_STEM]}"
        beside = [
            (f"{key}{suffix}", content) for suffix, content in _beside(path, records, manifest)
        ]
        needed = _padded(facts.st_size) + sum(_padded(len(content)) for _, content in beside)
        if not shards or (shards[-1].files and shards[-1].size + needed > shard_bytes):
            shards.append(TarShard(f"{name}-{len(shards):06d}.tar"))
        shard, member = shards[-1], key + Path(path).suffix.lower()
        places[path] = (len(shards) - 1, member, shard.size - len(END) + BLOCK, facts.st_size)
        shard.files.append((path, member, facts.st_size, beside))
        shard.size += needed
    return (
        shards,
        [[*places[record.path], *_facts(record)] for record in manifest.records],
        digest.hexdigest(),
    )


def _stat(record: Record) -> os.stat_result:
    if record.shard_video is not None:
        raise ManifestError(
            f"{record.path}: lies in a shard already; name the list that the shards were made of"
        )
    try:
        facts = os.stat(record.path)  # noqa: PTH116 (a hot path)
    except OSError as error:
        raise ManifestError(
            f"{record.path}: cannot be put into a shard ({error.strerror}); tools/check_data.py writes a list without "
            "such videos"
        ) from error
    if not stat.S_ISREG(facts.st_mode) or facts.st_size > LARGEST:
        raise ManifestError(
            f"{record.path}: shards hold video files below 8 GiB, no folders of frames; leave it out"
        )
    return facts


def _beside(path: str, records: list[Record], manifest: Manifest) -> list[tuple[str, bytes]]:
    """Suffix and content of the small files of one video, as webdataset has them."""
    facts: dict[str, Any] = {"file": Path(path).name}
    entries = [
        dict(zip(("row", "label", "start_seconds", "end_seconds"), (r.row, *_facts(r))))
        for r in records
    ]
    facts |= entries[0] if len(entries) == 1 else {"records": entries}
    label = records[0].label
    plain = isinstance(label, int) and all(record.label == label for record in records)
    if plain and isinstance(label, int) and manifest.class_names is not None:
        facts["class"] = manifest.class_names[label]
    content = json.dumps(
        {key: value for key, value in facts.items() if value is not None}, ensure_ascii=False
    )
    return [*([(".cls", str(label).encode())] if plain else []), (".json", content.encode())]


def _padded(size: int) -> int:
    """Bytes that a file takes with its header."""
    return BLOCK + -(-size // BLOCK) * BLOCK


def _header(name: str, size: int) -> bytes:
    facts = tarfile.TarInfo(name)
    facts.size = size
    return facts.tobuf(tarfile.USTAR_FORMAT)


def _write(shard: TarShard, out: BinaryIO) -> None:
    for path, member, size, beside in shard.files:
        out.write(_header(member, size))
        copied = 0
        with open(path, "rb") as file:  # noqa: PTH123 (a hot path)
            while chunk := file.read(CHUNK):
                copied += len(chunk)
                out.write(chunk)
        if copied != size:
            raise ManifestError(
                f"{path}: had {size} bytes and now has {copied}; is it still being fetched? Run it again"
            )
        out.write(bytes(-size % BLOCK))
        for name, content in beside:
            out.write(_header(name, len(content)) + content + bytes(-len(content) % BLOCK))
    out.write(END)
