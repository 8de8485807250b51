"""Records and manifests."""

from __future__ import annotations

import pytest

from hiera_video.data.manifest.record import Label, Manifest, Record
from hiera_video.errors import ManifestError


def manifest_of(*labels: Label, names: tuple[str, ...] | None = None) -> Manifest:
    records = tuple(
        Record(path=f"/{row}.mp4", label=label, row=row) for row, label in enumerate(labels)
    )
    return Manifest(records=records, class_names=names, multi_label=False, source="list.csv")


def test_number_of_classes() -> None:
    assert manifest_of(4, 2).num_classes == 5
    assert manifest_of((0, 7), (3,)).num_classes == 8
    assert manifest_of(None).num_classes == 0
    assert manifest_of(0, names=("a", "b", "c")).num_classes == 3


def test_to_multi_label() -> None:
    several = manifest_of(4, None, (1, 2)).to_multi_label()
    assert several.multi_label
    assert [record.label for record in several.records] == [(4,), None, (1, 2)]


def test_training_needs_labels() -> None:
    manifest_of(0, 1).require_labels()
    with pytest.raises(
        ManifestError,
        match=r"list.csv: /1.mp4 has no label; write `path label` lines or put the videos into one",
    ):
        manifest_of(0, None).require_labels()


def test_a_multi_label_video_may_show_no_class() -> None:
    """I 3.3"""
    manifest_of((3,), ()).to_multi_label().require_labels()
    with pytest.raises(ManifestError, match=r"list.csv: /1.mp4 has no label; "):
        manifest_of((3,), None).to_multi_label().require_labels()
    with pytest.raises(ManifestError, match=r"list.csv: no video shows any class; write `path 3;7"):
        manifest_of((), ()).to_multi_label().require_labels()


def test_labels_that_are_too_high() -> None:
    """I 3.3"""
    manifest_of(0, 2).require_labels_below(3, "the model has")
    with pytest.raises(
        ManifestError,
        match=r"list.csv: has labels up to 3, runs/x has 3 classes; correct the labels or choose",
    ):
        manifest_of(0, 3).require_labels_below(3, "runs/x has")
    with pytest.raises(
        ManifestError,
        match="its labels start at 1, but classes count from 0: subtract 1 from each",
    ):
        manifest_of(1, 3, 2).require_labels_below(3, "runs/x has")
