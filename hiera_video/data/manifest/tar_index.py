"""The index of tar shards, `train.index.json`: which video lies where, as a manifest like any other. No torch.

    {"class_names": […], "multi_label": false, "source": …, "made_of": …,
     "shards": [["train-000000.tar", bytes], …],
     "records": [[shard, name, offset, bytes, label, start_seconds, end_seconds], …]}

A record's row is its place in the list. The shards lie beside the index, or where `data.root` says, on this machine or at
a URL whose file system fsspec knows and has.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hiera_video.data.manifest.record import Manifest, Record, as_tuple
from hiera_video.errors import ManifestError
from hiera_video.utils.remote_files import fetch, is_url
from hiera_video.utils.safe_paths import SafeRoot
from hiera_video.utils.text_files import read_json
from hiera_video.video.options import ShardVideo

SUFFIX = ".index.json"
KEYS = ("class_names", "multi_label", "source", "shards", "records")


def is_index(content: object) -> bool:
    return isinstance(content, dict) and ("shards" in content or "records" in content)


def read_remote_index(url: str, root: str | None) -> Manifest:
    """The manifest of an index at a URL."""
    if not url.endswith(".json"):
        raise ManifestError(
            f"{url}: is a URL, and manifests are read from disk; download it and the videos first (only the index of "
            f"tar shards, …{SUFFIX}, is read from elsewhere)"
        )
    return read_index(url, _content(url), root if root is not None else url.rpartition("/")[0])


def part_of_index(source: str, rows: Sequence[int]) -> str:
    """The index at `source` with the records at `rows` alone; the shards stay where they are."""
    content: Any = _content(source)
    content.pop("made_of", None)
    return json.dumps(
        {**content, "records": [content["records"][row] for row in rows]}, ensure_ascii=False
    )


def _content(source: str) -> object:
    if not is_url(source):
        return read_json(Path(source))
    try:
        content = fetch(source)
    except OSError as error:
        raise ManifestError(f"{source}: cannot be read ({error})") from error
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{source}: is not JSON ({error}); make the file anew") from error


def read_index(source: str, content: object, folder: str) -> Manifest:
    """The manifest of an index; its shards lie in `folder`, a path or a URL."""
    if (
        not isinstance(content, dict)
        or not is_index(content)
        or any(key not in content for key in KEYS)
    ):
        raise ManifestError(
            f"{source}: is not the index of tar shards: it must have {', '.join(KEYS)}; make it anew"
        )
    shards = _Shards(source, content["shards"], folder)
    names, multi_label = content["class_names"], content["multi_label"] is True
    if names is not None and not (
        isinstance(names, list) and all(isinstance(name, str) for name in names)
    ):
        raise ManifestError(f"{source}: class_names must be a list of names; make the index anew")
    records = []
    for row, entry in enumerate(
        content["records"] if isinstance(content["records"], list) else [None]
    ):
        if not isinstance(entry, list) or len(entry) != 7:
            raise ManifestError(
                f"{source}: record {row} does not have the 7 columns of an index; make it anew"
            )
        label = tuple(entry[4]) if multi_label and isinstance(entry[4], list) else entry[4]
        if not _is_label(label, multi_label, names) or not all(map(_is_time, entry[5:])):
            raise ManifestError(
                f"{source}: record {row} has label {label!r} and times {entry[5:]}; make the index anew"
            )
        stored = shards.video(row, *entry[:4])
        records.append(
            Record(
                path=stored.path,
                label=label,
                row=row,
                start_seconds=entry[5],
                end_seconds=entry[6],
                stored=stored,
            )
        )
    return Manifest(
        records=tuple(records),
        class_names=tuple(names) if names is not None else None,
        multi_label=multi_label,
        source=source,
    )


class _Shards:
    """The shards of an index: each is there, as large as it was, and inside the folder."""

    def __init__(self, source: str, entries: Any, folder: str) -> None:
        self._source = source
        self._places: list[tuple[str, int]] = []
        confined = None if is_url(folder) else SafeRoot(folder)
        for number, entry in enumerate(entries if isinstance(entries, list) else [None]):
            if not (
                isinstance(entry, list)
                and len(entry) == 2
                and _is_name(entry[0])
                and _is_count(entry[1])
            ):
                raise ManifestError(
                    f"{source}: shard {number} is {entry!r}, not a file's name and size; make it anew"
                )
            name, size = entry
            if confined is None:
                self._places.append((f"{folder.rstrip('/')}/{name}", size))
                continue
            path = confined.resolve(name, f"{source}: shard {number}")
            if not Path(path).is_file():
                raise ManifestError(
                    f"{path}: no such file, but {source} lists it; copy the shard there or set data.root"
                )
            there = Path(path).stat().st_size
            if there != size:
                raise ManifestError(
                    f"{path}: has {there} of {size} bytes that {source} says; copy the shard again, or make both anew"
                )
            self._places.append((path, size))

    def video(self, row: int, shard: Any, name: Any, offset: Any, size: Any) -> ShardVideo:
        if not (_is_count(shard) and shard < len(self._places)) or not _is_name(name):
            raise ManifestError(
                f"{self._source}: record {row} lies in shard {shard!r} as {name!r}, and there are "
                f"{len(self._places)} shards; make the index anew"
            )
        path, there = self._places[shard]
        if not (_is_count(offset) and _is_count(size) and 512 <= offset <= offset + size <= there):
            raise ManifestError(
                f"{self._source}: record {row} lies at byte {offset!r} to {offset!r} + {size!r} of {path}, which has "
                f"{there}; make the index anew"
            )
        return ShardVideo(shard=path, member=name, offset=offset, size=size)


def _is_name(value: Any) -> bool:
    """One file's name: an index must not lead out of its folder."""
    return isinstance(value, str) and value not in ("", ".", "..") and not set(value) & set("/\\\0")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_time(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and 0 <= value < float("inf"))


def _is_label(label: Any, multi_label: bool, names: list[str] | None) -> bool:
    if label is None:
        return True
    if not isinstance(label, tuple if multi_label else int):
        return False
    return all(
        _is_count(index) and (names is None or index < len(names)) for index in as_tuple(label)
    )
