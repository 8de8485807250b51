"""Sources of videos: by their names, a column, or their pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.prepare.sources import (
    join_sources,
    name_sources,
    read_groups,
    source_names,
)
from hiera_video.errors import ConfigError, ManifestError


def manifest(*paths: Path) -> Manifest:
    records = tuple(Record(path=str(path), label=0, row=row) for row, path in enumerate(paths))
    return Manifest(records=records, class_names=None, multi_label=False, source="videos")


def test_names_of_segments() -> None:
    paths = [
        "a/x_y_000010_000020.mp4",
        "b/x_y_3_4.mp4",
        "v_Archery_g01_c02.avi",
        "7.mp4",
        "a_2.mp4",
    ]
    assert name_sources(paths) == ["x_y", "x_y", "v_Archery_g01", None, None]


def test_a_name_that_most_videos_share_is_no_source(caplog: pytest.LogCaptureFixture) -> None:
    assert name_sources(["clip_1_2.mp4", "clip_2_3.mp4", "b_1_2.mp4"]) == [None, None, None]
    assert "2 of 3 names begin with 'clip': not taken as their source; --source" in caplog.text


def test_a_pattern_of_the_users() -> None:
    assert name_sources(["in/cam1_5.mp4", "in/cam2_5.mp4", "x.mp4"], r"(cam\d)_") == [
        "cam1",
        "cam2",
        None,
    ]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(a", r"--source \(a: is not a regular expression: missing \)"),
        ("cam", "--source cam: has no group; put the part that names the source into brackets"),
        ("(q)", r"--source \(q\): matches none of the paths, such as a.mp4"),
    ],
)
def test_invalid_patterns(pattern: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        name_sources(["a.mp4"], pattern)


def test_groups_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "groups.csv"
    file.write_text("path,label,group\nup/a.mp4,up,barn\nup/b.mp4,up,gate\n")
    videos = manifest(tmp_path / "up/b.mp4", tmp_path / "up/a.mp4")
    assert read_groups(file, videos) == ["gate", "barn"]
    words = r"has no group for 1 of 1 video, such as .*c\.mp4; add"
    with pytest.raises(ManifestError, match=words):
        read_groups(file, manifest(tmp_path / "up/c.mp4"))
    file.write_text("file,group\n")
    words = r"groups\.csv:1: has the columns file, group; needs `path`"
    with pytest.raises(ManifestError, match=words):
        read_groups(file, videos)
    with pytest.raises(ManifestError, match=r"--groups none\.csv: no such file; write a CSV file"):
        read_groups(Path("none.csv"), videos)


def test_sources_are_joined_over_all_signs() -> None:
    columns = [["a", "a", "b", "c", "d", "e"], [None, 1, 1, None, 2, None]]
    assert join_sources(columns, [(3, 4)]) == [0, 0, 0, 3, 3, 5]


def test_names_of_sources_depend_on_neither_folder_nor_order() -> None:
    column = ["x", None, "x"]
    assert source_names(["/d/e/2.mp4", "/d/e/f/3.mp4", "/d/e/1.mp4"], [column]) == [
        "1.mp4",
        "f/3.mp4",
        "1.mp4",
    ]
    assert source_names(["/1.mp4", "/f/3.mp4", "/2.mp4"], [column]) == ["1.mp4", "f/3.mp4", "1.mp4"]
