"""Index of tar shards: subsets, damaged indices and shards, and URLs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.tar_index import subset_index
from hiera_video.errors import ConfigError, ManifestError


def test_subset_of_an_index(shards_index: Path, tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(subset_index(str(shards_index), [1, 6]))
    part = read_manifest(str(tmp_path / "train.json"), root=str(shards_index.parent))
    whole = read_manifest(str(shards_index)).records
    assert [record.shard_video for record in part.records] == [
        whole[1].shard_video,
        whole[6].shard_video,
    ]
    assert [record.row for record in part.records] == [0, 1]


def edited(index: Path, **changes: Any) -> None:
    content = json.loads(index.read_text())
    for key, value in changes.items():
        if key == "record":
            content["records"][2] = [
                new if new is not None else old for new, old in zip(value, content["records"][2])
            ]
        else:
            content[key] = value
    index.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shards": None}, "shard 0 is None, not a file's name and size; create the index again"),
        ({"shards": [["../x.tar", 5]]}, "shard 0 is ['../x.tar', 5], not a file's name and size"),
        ({"shards": [["gone.tar", 5]]}, "gone.tar: no such file, but "),
        (
            {"records": [[0, "a.mp4"]]},
            "record 0 does not have the 7 columns of an index; create it again",
        ),
        ({"records": None}, "record 0 does not have the 7 columns"),
        (
            {"class_names": "up"},
            "class_names must be a list of names that differ; create the index again",
        ),
        (
            {"record": [99] + [None] * 6},
            "record 2 is in shard 99 as '0000002_v_1_x.mp4', but there are ",
        ),
        (
            {"record": [None, "../a.mp4"] + [None] * 5},
            "record 2 is in shard 0 as '../a.mp4', but there are ",
        ),
        (
            {"record": [None, None, 10**9] + [None] * 4},
            "record 2 is at byte 1000000000 to 1000000000 + ",
        ),
        ({"record": [None, None, -512] + [None] * 4}, "record 2 is at byte -512 to -512 + "),
        (
            {"record": [None] * 4 + [3, None, None]},
            "record 2 has label 3 and times [None, None]; create the index again",
        ),
        ({"record": [None] * 4 + [True, None, None]}, "record 2 has label True and times"),
        ({"record": [None] * 4 + [[1], None, None]}, "record 2 has label [1] and times"),
        ({"records": []}, "has no records; create the index again"),
        ({"multi_label": 1}, "multi_label must be true or false; create the index again"),
        ({"class_names": ["up", "up", ""]}, "class_names must be a list of names that differ"),
        ({"record": [None] * 5 + [2.0, 1.0]}, "record 2 has label 0 and times [2.0, 1.0]"),
        ({"record": [None] * 5 + [True, 2.0]}, "record 2 has label 0 and times [True, 2.0]"),
        ({"record": [None] * 5 + [-1.0, 2.0]}, "record 2 has label 0 and times [-1.0, 2.0]"),
    ],
)
def test_damaged_indices(copied_index: Path, changes: dict[str, Any], words: str) -> None:
    edited(copied_index, **changes)
    with pytest.raises(ManifestError) as caught:
        read_manifest(str(copied_index))
    assert words in str(caught.value)


def test_damaged_files(copied_index: Path, tmp_path: Path, served_shards: str) -> None:
    copy, whole = copied_index, copied_index.read_text()
    copy.write_text(whole[:-20])
    with pytest.raises(
        ManifestError, match=r"train.index.json:1: is not JSON .*create the file again"
    ):
        read_manifest(str(copy))
    copy.write_text('{"shards": []}')
    with pytest.raises(
        ManifestError,
        match=r"is not an index of tar shards, which has class_names, multi_label, source",
    ):
        read_manifest(str(copy))
    copy.write_text(whole)
    shard = copy.with_name("train-000001.tar")
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(
        ManifestError,
        match=r"train-000001.tar: has \d+ bytes, but .* lists \d+; copy the shard again",
    ):
        read_manifest(str(copy))
    outside = tmp_path / "outside.tar"
    outside.write_bytes(shard.read_bytes())
    shard.unlink()
    shard.symlink_to(outside)
    with pytest.raises(
        ManifestError, match=r"shard 1: 'train-000001.tar' is or lies behind a link that leaves"
    ):
        read_manifest(str(copy))
    fs = fsspec.filesystem("memory")
    fs.pipe("/served/bad.index.json", whole[:-20].encode())
    with pytest.raises(
        ManifestError, match=r"memory://served/bad.index.json: is not JSON .*create the file again"
    ):
        read_manifest(f"{served_shards}/bad.index.json")
    with pytest.raises(ManifestError, match=r"memory://served/gone.index.json: cannot be read"):
        read_manifest(f"{served_shards}/gone.index.json")


def test_urls_that_cannot_be_read(tmp_path: Path) -> None:
    for protocol in ("abfs-nowhere", "dropbox"):  # unknown; known, not installed
        with pytest.raises(
            ConfigError,
            match=r"no file system for such URLs is installed .*install it, or download",
        ):
            read_manifest(f"{protocol}://x/train.index.json")
    listing = tmp_path / "list.csv"
    listing.write_text("a.mp4 0\n")
    with pytest.raises(
        ManifestError,
        match=r"data.root=s3://b: is a URL, which needs an index of tar shards",
    ):
        read_manifest(str(listing), root="s3://b")


JSON_TYPES = [
    *(None, True, -1, 1.5, 10**30, math.nan, math.inf),
    *("", "x" * 10_000, "\ud800", [], [[]], {}, {"a": 1}),
]


def places(value: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the path of keys and positions to each value inside a JSON value."""
    yield ()
    items = value.items() if isinstance(value, dict) else ()
    for key, item in enumerate(value) if isinstance(value, list) else items:
        yield from ((key, *place) for place in places(item))


def put(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    copied = value.copy()
    copied[place[0]] = put(value[place[0]], place[1:], new)
    return copied


def test_an_index_of_any_json_type(tmp_path: Path) -> None:
    """I 4.2: one line with the file's name, or a manifest."""
    (tmp_path / "a.tar").write_bytes(bytes(10_240))
    index = tmp_path / "a.index.json"
    content = {
        "class_names": ["a", "b"],
        "multi_label": False,
        "source": "x",
        "shards": [["a.tar", 10_240]],
        "records": [[0, "a.mp4", 512, 100, 1, 0.0, 1.0]],
    }
    for place in places(content):
        for new in JSON_TYPES:
            index.write_text(json.dumps(put(content, place, new)))
            try:
                assert len(read_manifest(str(index)).records) == 1
            except ManifestError as error:
                assert str(index) in str(error) and len(str(error)) < 500
    for text in ("[" * 100_000, "1" * 5000, '{"records": ' * 100_000):
        index.write_text(text)
        with pytest.raises(ManifestError, match=r"a\.index\.json: (is nested too|contains a numb)"):
            read_manifest(str(index))
