"""Class-balanced order: every class equally often, by turns."""

from __future__ import annotations

from collections import Counter

import pytest

from hiera_video.data.loading.balanced import balanced_rows, classes_to_balance
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.errors import ConfigError

CLASSES = [0] * 8 + [1] * 2 + [2] * 2


def test_each_class_comes_equally_often_and_goes_through_its_videos() -> None:
    rows = balanced_rows(CLASSES, seed=0, epoch=0)
    assert [CLASSES[row] for row in rows] == [0, 1, 2] * 4
    counts = Counter(rows)
    assert [counts[row] for row in (8, 9, 10, 11)] == [2, 2, 2, 2]
    assert all(counts[row] <= 1 for row in range(8))
    same, other = (balanced_rows(CLASSES, seed=0, epoch=epoch) for epoch in (0, 1))
    assert rows == same != other
    seen = {row for epoch in range(12) for row in balanced_rows(CLASSES, seed=0, epoch=epoch)}
    assert seen == set(range(12))


def test_classes_of_a_manifest() -> None:
    records = tuple(
        Record(path=f"{row}.mp4", label=label, row=row) for row, label in enumerate((2, None, 1))
    )
    manifest = Manifest(records=records, class_names=None, multi_label=False, source="list")
    assert classes_to_balance(manifest) == (2, 0, 1)
    record = Record(path="a.mp4", label=(0, 1), row=0)
    manifest = Manifest(records=(record,), class_names=None, multi_label=True, source="list")
    with pytest.raises(
        ConfigError,
        match=r"train.balanced_sampling=true: needs one label per video, but this list has "
        r"several; use train.weighted_loss",
    ):
        classes_to_balance(manifest)
