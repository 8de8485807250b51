"""Splits by class that keep sources together."""

from __future__ import annotations

from collections import Counter

import pytest

from hiera_video.data.manifest.record import Label, Manifest, Record
from hiera_video.data.prepare.split import Part, split_parts, take_part

SHARES: dict[Part, float] = {"val": 0.15, "test": 0.15}


def counts(labels: list[Label], sources: list[str], **shares: float) -> dict[object, Counter[str]]:
    parts = split_parts(labels, sources, shares or SHARES)  # type: ignore[arg-type]
    found: dict[object, Counter[str]] = {}
    for label, part in zip(labels, parts):
        found.setdefault(label, Counter())[part] += 1
    return found


@pytest.mark.parametrize(
    ("videos", "expected"),
    [
        (1, {"train": 1}),
        (2, {"train": 1, "test": 1}),
        (3, {"train": 1, "val": 1, "test": 1}),
        (5, {"train": 3, "val": 1, "test": 1}),
        (20, {"train": 14, "val": 3, "test": 3}),
    ],
)
def test_each_class_is_divided(videos: int, expected: dict[str, int]) -> None:
    labels = [0] * videos + [1] * videos
    found = counts(labels, [str(row) for row in range(2 * videos)])  # type: ignore[arg-type]
    assert found == {0: expected, 1: expected}


def test_unbalanced_classes_are_divided_each_by_itself() -> None:
    labels: list[Label] = [0] * 40 + [1] * 4
    found = counts(labels, [str(row) for row in range(44)])
    assert found == {
        0: {"train": 28, "val": 6, "test": 6},
        1: {"train": 2, "val": 1, "test": 1},
    }


def test_sources_are_not_divided_and_each_part_gets_one() -> None:
    sources = ["a"] * 10 + ["b"] * 10 + ["c"]
    parts = split_parts([0] * 21, sources, SHARES)
    found = {
        source: {part for part, own in zip(parts, sources) if own == source} for source in "abc"
    }
    assert all(len(part) == 1 for part in found.values())
    assert set.union(*found.values()) == {"train", "val", "test"}


def test_a_source_of_several_classes() -> None:
    """Each film shows both classes."""
    sources = [f"film {row // 2}" for row in range(40)]
    labels: list[Label] = [row % 2 for row in range(40)]
    assert counts(labels, sources) == {
        label: {"train": 14, "val": 3, "test": 3} for label in (0, 1)
    }


def test_several_labels_and_none() -> None:
    labels: list[Label] = [(0, 1), (0,), (1,), ()] * 5
    parts = split_parts(labels, [str(row) for row in range(20)], {"test": 0.2})
    assert Counter(parts) == {"train": 16, "test": 4}


def test_the_order_of_the_list_changes_nothing_and_a_share_of_zero_holds_out_nothing() -> None:
    sources = [str(row) for row in range(20)]
    forward = dict(zip(sources, split_parts([0] * 20, sources, SHARES)))
    backward = split_parts([0] * 20, sources[::-1], SHARES)
    assert forward == dict(zip(sources[::-1], backward))
    assert counts([0] * 10, sources[:10], val=0.0, test=0.2) == {0: {"train": 8, "test": 2}}


def test_a_part_is_a_list_of_its_own() -> None:
    records = tuple(Record(path=f"/{row}.mp4", label=row, row=row) for row in range(3))
    manifest = Manifest(records=records, class_names=None, multi_label=False, source="all.csv")
    part = take_part(manifest, ["train", "val", "train"], "train")
    assert [(record.path, record.row) for record in part.records] == [("/0.mp4", 0), ("/2.mp4", 1)]
    assert part.source == "all.csv (train)"
