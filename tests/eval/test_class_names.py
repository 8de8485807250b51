"""Labels mean what the checkpoint's outputs mean, or the test does not start."""

from __future__ import annotations

import re

import pytest

from hiera_video.data.manifest.record import Label, Manifest, Record
from hiera_video.errors import ManifestError
from hiera_video.eval.class_names import align_classes, listed, names_of

NAMES = ("archery", "bowling", "crying")


def manifest(names: tuple[str, ...] | None, *labels: Label) -> Manifest:
    records = tuple(
        Record(path=f"/{row}.mp4", label=label, row=row) for row, label in enumerate(labels)
    )
    return Manifest(records=records, class_names=names, multi_label=False, source="val.csv")


def labels(found: Manifest) -> list[Label]:
    return [record.label for record in found.records]


def test_the_same_names_or_none_are_taken_as_they_are() -> None:
    for names in (NAMES, None, NAMES[:2]):
        found = align_classes(manifest(names, 0, 1), NAMES, checkpoint="runs/x", remap=False)
        assert labels(found) == [0, 1] and found.class_names == NAMES
    assert align_classes(
        manifest(("x",), 0), None, checkpoint="x.pth", remap=False
    ).class_names == ("x",)


def test_another_order_is_an_error_that_offers_the_remap() -> None:
    words = (
        "val.csv: class 0 is 'crying', but 'archery' to runs/x; its 2 names are in another order than the checkpoint's 3: "
        "set test.remap_classes=true to map the labels by name"
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
def test_unknown_names_are_an_error_that_lists_them(remap: bool) -> None:
    words = (
        "val.csv: names classes that runs/x was not trained on: 'diving' (it knows, and the manifest does not: "
        "'bowling', 'crying'); test on the classes of the training, or write its names into the manifest's labels file"
    )
    with pytest.raises(ManifestError, match=re.escape(words)):
        align_classes(
            manifest(("archery", "diving"), 0, 1), NAMES, checkpoint="runs/x", remap=remap
        )


def test_long_lists_are_counted() -> None:
    assert listed(["a"] * 7) == "'a', 'a', 'a', 'a', 'a' and 2 more"


def test_outputs_without_a_name_are_called_by_their_number() -> None:
    assert names_of(("archery", "bowling"), 4) == ("archery", "bowling", "2", "3")
    assert names_of(None, 2) == ("0", "1") and names_of(NAMES, 3) == NAMES
