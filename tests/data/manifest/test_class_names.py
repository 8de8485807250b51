"""Class names: the file beside a list, and labels mapped to another order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hiera_video.data.manifest.class_names import (
    find_class_names,
    kinetics400_names,
    read_class_names,
    remap_labels,
    share_class_names,
    write_class_names,
)
from hiera_video.data.manifest.record import Label, Manifest, Record
from hiera_video.errors import ManifestError


def manifest_of(names: tuple[str, ...] | None, *labels: Label) -> Manifest:
    records = tuple(
        Record(path=f"/{row}.mp4", label=label, row=row) for row, label in enumerate(labels)
    )
    return Manifest(records=records, class_names=names, multi_label=False, source="val.csv")


def test_names_beside_a_list(tmp_path: Path) -> None:
    listing = tmp_path / "train.csv"
    assert find_class_names(listing) == (None, None)
    (tmp_path / "labels.json").write_text('{"b": "1", "a": "0"}')
    assert find_class_names(listing) == (("a", "b"), tmp_path / "labels.json")
    write_class_names(tmp_path, ["abseiling", "air drumming"])
    assert find_class_names(listing) == (("abseiling", "air drumming"), tmp_path / "labels.txt")
    # a list called labels.txt does not name its own classes
    assert find_class_names(tmp_path / "labels.txt")[1] == tmp_path / "labels.json"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("labels.json", '{"a": 1}', "must be a list of names, or map each name to its index"),
        ("labels.json", '{"a": "x"}', "labels.json: must be a list of names"),
        ("labels.json", '{"a": 1e999}', "labels.json: must be a list of names"),
        ("labels.json", '["a", []]', "labels.json: must be a list of names"),
        ("labels.json", '["a", ""]', "labels.json: must be a list of names"),
        ("labels.json", "9" * 5000, "labels.json: contains a number of too many digits; create"),
        ("labels.json", "[" * 9999, "labels.json: is nested too deeply to be an annotation file"),
        ("labels.json", "[]", "labels.json: must be a list of names"),
        ("labels.json", '["a", "a"]', "labels.json: must be a list of names"),
        ("labels.txt", "a\n\nb", "labels.txt:2: is empty; line i names class i - 1"),
        ("labels.txt", "a\nb\na", "labels.txt:3: class 'a' is also on line 1; names must differ"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ManifestError, match=words):
        read_class_names(tmp_path / name)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no.txt: no such file; write one class name per line"):
        read_class_names(tmp_path / "no.txt")


def test_remap_labels() -> None:
    manifest = remap_labels(manifest_of(("c", "a"), 0, 1, (0, 1), None), ("a", "b", "c"))
    assert manifest.class_names == ("a", "b", "c")
    assert [record.label for record in manifest.records] == [2, 0, (0, 2), None]


def test_share_class_names() -> None:
    names = ("a", "b")
    unnamed = share_class_names(manifest_of(None, 1), names, "labels.txt")
    assert (unnamed.class_names, unnamed.records[0].label) == (names, 1)
    with pytest.raises(ManifestError, match=r"val.csv: has labels up to 2, but labels.txt names 2"):
        share_class_names(manifest_of(None, 2), names, "labels.txt")
    with pytest.raises(ManifestError, match=r"val.csv: has the class 'c', which labels.txt lacks"):
        share_class_names(manifest_of(("a", "c"), 0), names, "labels.txt")


@pytest.mark.parametrize("name", ["a\nb", "a ", " a", "a\r", os.fsdecode(b"caf\xe9")])
def test_names_that_a_line_cannot_hold(tmp_path: Path, name: str) -> None:
    """I 4.3, 4.10: they moved the indices of all later classes, or ended the command."""
    write_class_names(tmp_path, ["x", name, "a"])
    assert find_class_names(tmp_path / "train.csv") == (("x", name, "a"), tmp_path / "labels.json")


def test_kinetics_names_are_those_of_the_published_weights() -> None:
    models = pytest.importorskip("torchvision.models.video")
    names = kinetics400_names()
    assert names == tuple(models.MViT_V2_S_Weights.KINETICS400_V1.meta["categories"])
    assert (len(names), names[0], names[-1]) == (400, "abseiling", "zumba")
