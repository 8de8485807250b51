"""Issue I, 3.1: what changed in a list since a run began."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.train.list_digest import describe_changes, is_same_list, list_digest

NAMES = ("bend", "jump")


def manifest(*paths: str, names: tuple[str, ...] | None = NAMES, first: int = 0) -> Manifest:
    records = tuple(
        Record(path=path, label=(first + row) % 2, row=row) for row, path in enumerate(paths)
    )
    return Manifest(records=records, class_names=names, multi_label=False, source="train.csv")


BEFORE = manifest("/data/a/1.mp4", "/data/b/2.mp4")


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (manifest("/moved/to/a/1.mp4", "/moved/to/b/2.mp4"), ""),
        (manifest("/data/a/1.mp4", "/data/b/3.mp4"), "other videos or segments"),
        (manifest("/data/a/1.mp4", "/data/b/2.mp4", first=1), "other labels"),
        (manifest("/data/b/2.mp4", "/data/a/1.mp4", first=1), "another order of the videos"),
        (manifest("/data/a/1.mp4"), "2 → 1 video"),
        (
            manifest("/data/a/1.mp4", "/data/b/2.mp4", names=("bend", "run")),
            "class 1 'jump' → 'run'",
        ),
        (manifest("/data/a/1.mp4", "/data/b/2.mp4", names=("bend",)), "2 → 1 class names"),
        (
            manifest("/data/b/2.mp4", names=("jump", "bend")),
            "2 → 1 video, class 0 'bend' → 'jump'",
        ),
    ],
)
def test_changes_are_named(now: Manifest, expected: str) -> None:
    found = describe_changes(
        list_digest(BEFORE), list_digest(now), names=NAMES, new_names=now.class_names
    )
    assert found == expected


def test_segments_count_and_pretraining_ignores_labels() -> None:
    part = replace(BEFORE, records=(replace(BEFORE.records[0], end_seconds=2.0),))
    whole = replace(BEFORE, records=BEFORE.records[:1])
    assert list_digest(part)["records"] != list_digest(whole)["records"]
    other = manifest("/data/a/1.mp4", "/data/b/2.mp4", names=None, first=1)
    assert list_digest(other, labels=False) == list_digest(BEFORE, labels=False)
    empty = replace(BEFORE, records=())
    assert list_digest(empty)["videos"] == 0


def test_equal_names_in_another_folder_are_the_same_list_only_if_the_first_is_gone(
    tmp_path: Path,
) -> None:
    (tmp_path / "a").mkdir()
    old, new = (
        list_digest(manifest(f"{tmp_path}/{name}/1.mp4", f"{tmp_path}/{name}/2.mp4"))
        for name in "ab"
    )
    swapped = manifest(f"{tmp_path}/a/2.mp4", f"{tmp_path}/a/1.mp4", first=1)
    assert is_same_list(old, list_digest(swapped)) and not is_same_list(old, new)
    (tmp_path / "a").rmdir()
    assert is_same_list(old, new)
