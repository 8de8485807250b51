"""Index of tar shards, `train.index.json`: the position of every video, read like any manifest.

    {"class_names": […], "multi_label": false, "source": …,
     "shards": [["train-000000.tar", bytes], …],
     "records": [[shard, name, offset, bytes, label, start_seconds, end_seconds], …]}

The row of a record is its position in the list. The shards lie beside the index or in `data.root`,
on disk or at a URL with an installed fsspec file system. No torch.
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
from hiera_video.utils.text_files import is_text, read_json, shorten
from hiera_video.video.options import ShardVideo

INDEX_SUFFIX = ".index.json"
INDEX_KEYS = ("class_names", "multi_label", "source", "shards", "records")
TAR_HEADER_BYTES = 512
LONGEST_NAME = 255


def is_index(content: object) -> bool:
    """Return True if a JSON file's content looks like an index of shards."""
    return isinstance(content, dict) and ("shards" in content or "records" in content)


def read_remote_index(url: str, root: str | None) -> Manifest:
    """Read the index at a URL; its shards lie beside it or in `root`."""
    if not url.endswith(".json"):
        raise ManifestError(
            f"{url}: is a URL, and manifests are read from disk; download it and the videos first "
            f"(only an index of tar shards, …{INDEX_SUFFIX}, can be remote)"
        )
    return read_index(url, _read_content(url), root if root is not None else url.rpartition("/")[0])


def subset_index(source: str, rows: Sequence[int]) -> str:
    """Return the content of an index with only the records at `rows`; the shards do not change."""
    content: Any = _read_content(source)
    content.pop("made_of", None)
    return json.dumps(
        {**content, "records": [content["records"][row] for row in rows]}, ensure_ascii=False
    )


def _read_content(source: str) -> object:
    if not is_url(source):
        return read_json(Path(source))
    try:
        content = fetch(source)
    except OSError as error:
        raise ManifestError(f"{source}: cannot be read ({error})") from error
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{source}: is not JSON ({error}); create the file again") from error


def read_index(
    source: str, content: object, folder: str, *, follow_links: bool = False
) -> Manifest:
    """Check the content of an index and its shards, and return it as a manifest.

    Args:
        source: Path or URL of the index, for messages.
        content: The parsed JSON.
        folder: Folder or URL of the shards.
        follow_links: Let shards be links that lead out of the folder.

    Raises:
        ManifestError: The index is damaged, or a shard is missing or has another size.
    """
    if (
        not isinstance(content, dict)
        or not is_index(content)
        or any(key not in content for key in INDEX_KEYS)
    ):
        raise ManifestError(
            f"{source}: is not an index of tar shards, which has {', '.join(INDEX_KEYS)}; "
            "create it again"
        )
    names, multi_label = content["class_names"], content["multi_label"]
    if names is not None and not (
        isinstance(names, list)
        and all(is_text(name) and name for name in names)
        and len(set(names)) == len(names) > 0
    ):
        raise ManifestError(
            f"{source}: class_names must be a list of names that differ; create the index again"
        )
    if not isinstance(content["multi_label"], bool):
        raise ManifestError(f"{source}: multi_label must be true or false; create the index again")
    if content["records"] == []:
        raise ManifestError(f"{source}: has no records; create the index again")
    shards = _Shards(source, content["shards"], folder, follow_links)
    entries = content["records"] if isinstance(content["records"], list) else [None]
    return Manifest(
        records=tuple(
            _parse_record(source, row, entry, shards, multi_label, names)
            for row, entry in enumerate(entries)
        ),
        class_names=tuple(names) if names is not None else None,
        multi_label=multi_label,
        source=source,
    )


def _parse_record(
    source: str,
    row: int,
    entry: object,
    shards: _Shards,
    multi_label: bool,
    names: list[str] | None,
) -> Record:
    if not isinstance(entry, list) or len(entry) != 7:
        raise ManifestError(
            f"{source}: record {row} does not have the 7 columns of an index; create it again"
        )
    shard, name, offset, size, label, start, end = entry
    if multi_label and isinstance(label, list):
        label = tuple(label)
    if not _is_label(label, multi_label, names) or not _is_segment(start, end):
        raise ManifestError(
            f"{source}: record {row} has label {shorten(label)} and times {shorten([start, end])}; "
            "create the index again"
        )
    video = shards.locate(row, shard, name, offset, size)
    return Record(
        path=video.path,
        label=label,
        row=row,
        start_seconds=start,
        end_seconds=end,
        shard_video=video,
    )


class _Shards:
    """The shards of an index, each checked to exist inside the folder with the recorded size."""

    def __init__(self, source: str, entries: Any, folder: str, follow_links: bool) -> None:
        self._source = source
        self._shards: list[tuple[str, int]] = []
        """Path or URL, and size."""
        root = None if is_url(folder) else SafeRoot(folder, follow_links=follow_links)
        for number, entry in enumerate(entries if isinstance(entries, list) else [None]):
            if not (
                isinstance(entry, list)
                and len(entry) == 2
                and _is_name(entry[0])
                and _is_count(entry[1])
            ):
                raise ManifestError(
                    f"{source}: shard {number} is {shorten(entry)}, not a file's name and size; "
                    "create the index again"
                )
            name, size = entry
            if root is None:
                self._shards.append((f"{folder.rstrip('/')}/{name}", size))
                continue
            path = root.resolve(name, f"{source}: shard {number}")
            self._check_size(path, size)
            self._shards.append((path, size))

    def _check_size(self, path: str, size: int) -> None:
        if not Path(path).is_file():
            raise ManifestError(
                f"{path}: no such file, but {self._source} lists it; "
                "copy the shard there or set data.root"
            )
        if (found := Path(path).stat().st_size) != size:
            raise ManifestError(
                f"{path}: has {found} bytes, but {self._source} lists {size}; "
                "copy the shard again, or create both again"
            )

    def locate(self, row: int, shard: Any, name: Any, offset: Any, size: Any) -> ShardVideo:
        """Return the position of a record's video after checking it."""
        if not (_is_count(shard) and shard < len(self._shards)) or not _is_name(name):
            raise ManifestError(
                f"{self._source}: record {row} is in shard {shorten(shard)} as "
                f"{shorten(name)}, but there are "
                f"{len(self._shards)} shards; create the index again"
            )
        path, shard_size = self._shards[shard]
        if not (
            _is_count(offset)
            and _is_count(size)
            and TAR_HEADER_BYTES <= offset <= offset + size <= shard_size
        ):
            raise ManifestError(
                f"{self._source}: record {row} is at byte {shorten(offset)} to {shorten(offset)} "
                f"+ {shorten(size)} of {path}, which has {shard_size}; create the index again"
            )
        return ShardVideo(shard=path, member=name, offset=offset, size=size)


def _is_name(value: Any) -> bool:
    """Return True for the name of a file: an index must not lead out of its folder."""
    return (
        is_text(value)
        and value not in ("", ".", "..")
        and len(value) <= LONGEST_NAME
        and not set(value) & set("/\\\0")
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_segment(start: Any, end: Any) -> bool:
    if start is None and end is None:
        return True
    numbers = all(type(value) in (int, float) for value in (start, end))
    return numbers and 0 <= start < end < float("inf")


def _is_label(label: Any, multi_label: bool, names: list[str] | None) -> bool:
    if label is None:
        return True
    if not isinstance(label, tuple if multi_label else int):
        return False
    return all(
        _is_count(index) and (names is None or index < len(names)) for index in as_tuple(label)
    )
