"""Clean lists: the root that their paths start from, and which files they may replace."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.prepare.clean_list import common_root, plan_clean_lists
from hiera_video.data.prepare.scan import ScannedVideo
from hiera_video.errors import ConfigError


def manifest_of(*records: Record, multi_label: bool = False, source: str = "x") -> Manifest:
    return Manifest(records=records, class_names=None, multi_label=multi_label, source=source)


def readable(*paths: str) -> list[ScannedVideo]:
    return [ScannedVideo(row=row, path=path) for row, path in enumerate(paths)]


def test_segments_keep_their_times_and_labels() -> None:
    records = [
        Record(path="/r/s/a.mp4", label=(1, 2), row=i, start_seconds=float(i), end_seconds=i + 1.5)
        for i in range(2)
    ]
    manifest = manifest_of(*records, multi_label=True)
    clean = plan_clean_lists(Path("/r"), {"train": manifest}, written_before=())["train"]
    assert (clean.root, clean.lines) == ("/r/s", ("a.mp4 1;2 0 1.5\n", "a.mp4 1;2 1 2.5\n"))


def test_common_root_includes_targets_of_links(tmp_path: Path) -> None:
    for folder in ("v/train/a", "v/val/b", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    paths = [str(tmp_path / name) for name in ("v/train/a/0.mp4", "v/val/b/0.mp4")]
    assert common_root(paths) == str(tmp_path / "v")
    assert common_root(paths[:1]) == str(tmp_path / "v/train/a")
    assert common_root([]) == ""
    # a list's videos may not lie behind a link that leaves its root
    (tmp_path / "v/test").symlink_to("../elsewhere")
    paths.append(str(tmp_path / "v/test/0.mp4"))
    (tmp_path / "elsewhere/0.mp4").write_bytes(b"")
    assert common_root(paths) == str(tmp_path)
    manifest = manifest_of(*(Record(path=p, label=0, row=row) for row, p in enumerate(paths)))
    clean = plan_clean_lists(tmp_path, {"train": manifest}, written_before=())["train"]
    clean.write(readable(*paths))
    assert read_manifest(str(clean.path), root=clean.root).records == manifest.records


def test_no_list_of_the_users_is_overwritten(tmp_path: Path) -> None:
    video = Record(path=str(tmp_path / "a.mp4"), label=0, row=0)
    listing = tmp_path / "train.csv"
    listing.write_text("a.mp4 0\n")
    with pytest.raises(
        ConfigError, match=r"train.csv: is the list that is read and would be overwritten; choose"
    ):
        source = manifest_of(video, source=str(listing))
        plan_clean_lists(tmp_path, {"train": source}, written_before=("train.csv",))
    with pytest.raises(
        ConfigError, match=r"train.csv: exists and was not written by this tool; choose another"
    ):
        plan_clean_lists(tmp_path, {"train": manifest_of(video)}, written_before=())
    plan_clean_lists(tmp_path, {"train": manifest_of(video)}, written_before=("train.csv",))
