"""Class names shared by all splits, and their order compared with a reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiera_video.data.manifest.class_names import kinetics400_names
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.prepare.class_order import (
    check_class_order,
    compare_class_order,
    names_from_folders,
    unify_classes,
)
from hiera_video.errors import ManifestError


def split_of(source: str, names: tuple[str, ...] | None, *labels: int) -> Manifest:
    records = tuple(
        Record(path=f"/v/{source}/{row}.mp4", label=label, row=row)
        for row, label in enumerate(labels)
    )
    return Manifest(records=records, class_names=names, multi_label=False, source=source)


def records_in(folders: list[str]) -> list[Record]:
    return [
        Record(path=f"/k/{name.replace(' ', '_')}/{label}.mp4", label=label, row=label)
        for label, name in enumerate(folders)
    ]


def test_splits_get_the_first_splits_class_names(tmp_path: Path) -> None:
    train = split_of("train", ("a", "b", "c"), 0, 1, 2)
    val, unnamed = split_of("val", ("c", "b"), 0, 1), split_of("x", None, 2)
    found, names = unify_classes(
        {"train": train, "val": val, "test": unnamed}, tmp_path / "check.json"
    )
    assert names == ("a", "b", "c") and found["train"] == train
    assert [record.label for record in found["val"].records] == [2, 1]
    assert [record.label for record in found["test"].records] == [2]  # trusted


def test_an_existing_labels_file_decides(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("c\nb\n")
    val = split_of("val", ("b", "c"), 0, 1)
    found, names = unify_classes({"val": val}, tmp_path / "check.json")
    assert names == ("c", "b")
    assert [record.label for record in found["val"].records] == [1, 0]
    train = split_of("train", ("a", "b", "c"), 0, 1, 2)
    with pytest.raises(
        ManifestError, match=r"train: has the class 'a', which .*/labels.txt lacks, and they"
    ):
        unify_classes({"train": train}, tmp_path / "check.json")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (split_of("val", ("a", "d"), 0), "val: has the class 'd', which train lacks, and"),
        (split_of("val", None, 3), "val: has labels up to 3, but train names 3 classes, and"),
    ],
)
def test_splits_with_different_classes(tmp_path: Path, other: Manifest, words: str) -> None:
    train = split_of("train", ("a", "b", "c"), 0, 1, 2)
    end = " they would share one labels file; write this list into another folder, or give both"
    with pytest.raises(ManifestError, match=words + end):
        unify_classes({"train": train, "val": other}, tmp_path / "check.json")


def test_names_from_folders() -> None:
    assert names_from_folders(records_in(["a", "b"])) == ("a", "b")
    assert names_from_folders(records_in(["a", "a"])) is None
    assert names_from_folders(records_in(["a", "b"])[1:]) is None
    assert names_from_folders(()) is None


def test_spelling_variants_are_the_same_class() -> None:
    ours, theirs = ["Petting_animal_(not_cat)", "b"], ["petting animal (not cat)", "b"]
    assert compare_class_order(ours, theirs) == []


def test_differences_from_a_reference(tmp_path: Path) -> None:
    assert compare_class_order(["a"], ["a", "b"]) == ["1 class, but 2 in the reference"]
    assert compare_class_order(["b", "x"], ["a", "b"]) == [
        "class 0 is 'b', but 'a' in the reference (which has 'b' at 1)",
        "class 1 is 'x', but 'b' in the reference (which has no 'x')",
    ]
    file = tmp_path / "names.txt"
    file.write_text("a\nb\n")
    assert check_class_order(("a", "b"), str(file)) == ([], str(file))


def test_order_without_a_reference() -> None:
    assert check_class_order(None, None)[0] is None
    assert check_class_order(("a", "b"), None) == (
        None,
        "pass --classes with a file of class names in the right order",
    )


def test_kinetics_400_is_a_known_reference() -> None:
    kinetics = kinetics400_names()

    names = names_from_folders(records_in(kinetics))
    assert check_class_order(names, None) == ([], "Kinetics-400's order")
    swapped = names_from_folders(records_in([kinetics[1], kinetics[0], *kinetics[2:]]))
    differences, _ = check_class_order(swapped, "k400")
    assert differences is not None and len(differences) == 2
