"""Alignment of a manifest's classes with a checkpoint's."""

from __future__ import annotations

import re

import pytest

from hiera_video.data.manifest.record import Label, Manifest, Record
from hiera_video.errors import ManifestError
from hiera_video.eval.class_names import align_classes, output_names, quote_names

NAMES = ("archery", "bowling", "crying")


def manifest(names: tuple[str, ...] | None, *labels: Label) -> Manifest:
    records = tuple(
        Record(path=f"/{row}.mp4", label=label, row=row) for row, label in enumerate(labels)
    )
    return Manifest(records=records, class_names=names, multi_label=False, source="val.csv")


def labels(found: Manifest) -> list[Label]:
    return [record.label for record in found.records]


def test_equal_or_missing_names_leave_labels_unchanged() -> None:
    for names in (NAMES, None, NAMES[:2]):
        found = align_classes(manifest(names, 0, 1), NAMES, checkpoint="runs/x", remap=False)
        assert labels(found) == [0, 1] and found.class_names == NAMES
    assert align_classes(
        manifest(("x",), 0), None, checkpoint="x.pth", remap=False
    ).class_names == ("x",)


def test_another_order_is_an_error_unless_remapped() -> None:
    words = (
        "val.csv: class 0 is 'crying', but 'archery' in runs/x; its 2 names are in another order "
        "than the checkpoint's 3: set test.remap_classes=true to map the labels by name"
    )
    with pytest.raises(ManifestError, match=re.escape(words)):
        align_classes(
            manifest(("crying", "archery"), 0, 1), NAMES, checkpoint="runs/x", remap=False
        )
    found = align_classes(
        manifest(("crying", "archery"), 0, (0, 1), None), NAMES, checkpoint="runs/x", remap=True
    )
    assert labels(found) == [2, (0, 2), None] and found.class_names == NAMES


@pytest.mark.parametrize("remap", [False, True])
def test_unknown_names_are_listed(remap: bool) -> None:
    words = (
        "val.csv: names classes that runs/x was not trained on: 'diving' (classes of the "
        "checkpoint only: 'bowling', 'crying'); test on the classes of the training set, or write "
        "its names into the manifest's labels file"
    )
    with pytest.raises(ManifestError, match=re.escape(words)):
        align_classes(
            manifest(("archery", "diving"), 0, 1), NAMES, checkpoint="runs/x", remap=remap
        )


def test_long_lists_of_names_are_shortened() -> None:
    assert quote_names(["a"] * 7) == "'a', 'a', 'a', 'a', 'a' and 2 more"


def test_outputs_without_a_name_get_their_index() -> None:
    assert output_names(("archery", "bowling"), 4) == ("archery", "bowling", "2", "3")
    assert output_names(None, 2) == ("0", "1") and output_names(NAMES, 3) == NAMES


def test_aligning_is_linear_in_the_number_of_classes() -> None:
    """I 4.1: 100,000 class names took over a minute."""
    hashed = 0

    class Name(str):
        def __hash__(self) -> int:
            nonlocal hashed
            hashed += 1
            return super().__hash__()

    names = tuple(Name(number) for number in range(500))
    for theirs in (names[::-1], (*names[:-1], Name("other"))):
        with pytest.raises(ManifestError):
            align_classes(manifest(theirs), names, checkpoint="runs/x", remap=False)
    assert hashed <= 10 * len(names)


def test_labels_without_names_are_checked_before_any_work() -> None:
    """I 3.3: a label equal to the number of classes failed after all views."""
    words = f"has labels up to {len(NAMES)}, runs/x has {len(NAMES)} classes; correct the labels"
    with pytest.raises(ManifestError, match=words):
        align_classes(manifest(None, 0, len(NAMES)), NAMES, checkpoint="runs/x", remap=False)
