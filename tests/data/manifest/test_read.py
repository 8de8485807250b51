"""Folders, annotation files, and sources that are none of the known forms."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest
from hiera_video.errors import ManifestError
from hiera_video.video.options import FrameFolder


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def rows(manifest: Manifest, root: Path) -> list[tuple[object, ...]]:
    return [
        (str(Path(r.path).relative_to(root)), r.label, r.start_seconds, r.end_seconds)
        for r in manifest.records
    ]


def test_folders(tmp_path: Path) -> None:
    for name in (
        "b c/0/3.mp4",
        "b c/2.mp4",
        "b c/1.webm",
        "a/deep/x.MP4",
        "a/.half.mp4",
        "a/notes.txt",
        "empty/readme.txt",
    ):
        write(tmp_path / "classes" / name, "")
    manifest = read_manifest(str(tmp_path / "classes"))
    assert [row[:2] for row in rows(manifest, tmp_path / "classes")] == [
        ("a/deep/x.MP4", 0),
        ("b c/1.webm", 1),
        ("b c/2.mp4", 1),
        ("b c/0/3.mp4", 1),
    ]
    assert manifest.class_names == ("a", "b c")
    for name in ("2.mp4", "1.mp4"):
        write(tmp_path / "flat" / name, "")
    flat = read_manifest(str(tmp_path / "flat"))
    assert [row[:2] for row in rows(flat, tmp_path / "flat")] == [("1.mp4", None), ("2.mp4", None)]
    assert (flat.class_names, flat.num_classes) == (None, 0)


FRAMES = FrameFolder()


def write_files(folder: Path, *names: str) -> str:
    for name in names:
        write(folder / name, "")
    return str(folder)


def test_folders_of_extracted_frames(tmp_path: Path) -> None:
    """Hidden files, thumbnails inside of a video and pictures without a number are left out."""
    source = write_files(
        tmp_path / "classes",
        *("b/x 1/000.jpg", "b/x 1/001.jpg", "b/deep/y/img_7.PNG", "a/z/1.webp", "c/n.txt"),
        *("a/z/thumbs/1.jpg", "a/.cache/v/1.jpg", "a/__MACOSX/v/1.jpg", "a/cover.jpg"),
        *("a/z.mp4", ".git/v/1.jpg", "d/v/._1.jpg"),
    )
    manifest = read_manifest(source, frames=FRAMES)
    assert [row[:2] for row in rows(manifest, tmp_path / "classes")] == [
        ("a/z", 0),
        ("b/deep/y", 1),
        ("b/x 1", 1),
    ]
    assert manifest.class_names == ("a", "b")
    flat = read_manifest(str(tmp_path / "classes" / "b" / "deep"), frames=FRAMES)
    assert [row[:2] for row in rows(flat, tmp_path / "classes/b/deep")] == [("y", None)]
    assert flat.class_names is None
    named = FrameFolder(template="img_%d.PNG")
    assert [row[:2] for row in rows(read_manifest(source, frames=named), tmp_path)] == [
        ("classes/b/deep/y", 0)
    ]


def test_classes_of_pictures_among_classes_of_videos(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_files(tmp_path, "a/1.mp4", "b/v/1.jpg", "b/v/2.jpg", "c/2.mp4", "empty/x.txt")
    with caplog.at_level(logging.WARNING):
        manifest = read_manifest(source)
    assert manifest.class_names == ("a", "c")
    assert [record.getMessage() for record in caplog.records] == [
        f"warning: {source}: left out b, which has pictures but no videos; data.decoder=frames "
        "reads folders of pictures"
    ]
    assert read_manifest(source, frames=FRAMES).class_names == ("b",)


@pytest.mark.parametrize(
    ("names", "frames", "words"),
    [
        (
            ["x/1.jpg", "y/a/1.jpg"],
            FRAMES,
            "contains videos (x …) and class folders (y …); use one form, not both",
        ),
        (
            ["x/cover1.jpg", "x/v0/1.jpg"],
            FRAMES,
            "/x: contains pictures and a folder of pictures ({folder}/x/v0), so it may be a video "
            "or a class; move one of them",
        ),
        (
            ["train/x/a/1.jpg", "val/x/b/1.jpg"],
            FRAMES,
            ": contains train and val with folders of their own, which are splits rather than "
            "classes; pass one of them, {folder}/train",
        ),
        (
            ["x/v/a.jpg"],
            FRAMES,
            ": contains no folders of numbered pictures, which data.decoder=frames reads; make "
            "them as {folder}/<class>/<video>/00001.jpg",
        ),
        (
            ["x/v/1.jpg"],
            FrameFolder(template="img_%05d.jpg"),
            ": contains no folders of data.frame_template=img_%05d.jpg, which",
        ),
        (
            ["x/v/1.jpg"],
            None,
            ": contains no videos, but folders of pictures ({folder}/x/v …); data.decoder=frames "
            "reads those",
        ),
    ],
)
def test_refused_folders_of_frames(
    names: list[str], frames: FrameFolder | None, words: str, tmp_path: Path
) -> None:
    source = write_files(tmp_path, *names)
    with pytest.raises(ManifestError, match=re.escape(words.format(folder=tmp_path))):
        read_manifest(source, frames=frames)


def test_classes_may_be_called_like_splits(tmp_path: Path) -> None:
    for name in ("test/a.mp4", "train/b.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert read_manifest(str(tmp_path)).class_names == ("test", "train")


def test_something_something(tmp_path: Path) -> None:
    write(
        tmp_path / "labels.json", json.dumps({"Pushing something": "1", "Holding something": "0"})
    )
    entries = [
        {
            "id": "7",
            "label": "pushing a cup",
            "template": "Pushing [something]",
            "placeholders": ["a cup"],
        },
        {"id": "8", "template": "Holding [something]"},
        {"id": "9"},
    ]
    source = write(tmp_path / "train.json", json.dumps(entries))
    write(tmp_path / "videos/7.webm", "")
    write(tmp_path / "videos/8.mp4", "")
    manifest = read_manifest(source)
    assert [row[:2] for row in rows(manifest, tmp_path)] == [
        ("videos/7.webm", 1),
        ("videos/8.mp4", 0),
        ("videos/9.webm", None),
    ]
    assert manifest.class_names == ("Holding something", "Pushing something")
    (tmp_path / "elsewhere").mkdir()
    assert read_manifest(source, root=str(tmp_path / "elsewhere")).records[0].path == str(
        tmp_path / "elsewhere/7.webm"
    )


@pytest.mark.parametrize(
    ("files", "source", "words"),
    [
        (
            {},
            "data/k400/train.csv",
            "data/k400/train.csv: no such file or folder; `hiera-video prepare kinetics --help` "
            "explains how",
        ),
        (
            {},
            "my/train.csv",
            "my/train.csv: no such file or folder; `hiera-video prepare folder --help`"
            " explains how",
        ),
        (
            {},
            "https://x.org/train.csv",
            "is a URL, and manifests are read from disk; download it and the videos first",
        ),
        (
            {"a.mp4": ""},
            "a.mp4",
            "a.mp4: is a video, not a list of videos; pass the folder that contains it",
        ),
        ({"d/notes.txt": ""}, "d", "d: contains no videos; put them into"),
        (
            {"d/a.mp4": "", "d/x/b.mp4": ""},
            "d",
            "contains videos (a.mp4 …) and class folders (x …); use one form, not both",
        ),
        (
            {"d/train/x/a.mp4": "", "d/val/x/b.mp4": ""},
            "d",
            "d: contains train and val with folders of their own, which are splits rather than "
            "classes; pass one of them, d/train",
        ),
        ({"t.json": "[{]"}, "t.json", "t.json:1: is not JSON"),
        (
            {"t.json": "[" * 100_000},
            "t.json",
            "t.json: is nested too deeply to be an annotation file",
        ),
        (
            {"t.json": "{}"},
            "t.json",
            'is not of the form [{"id": …, "template": …}, …], as Something-Something\'s',
        ),
        (
            {"labels.json": '{"a": "0", "b": "1"}'},
            "labels.json",
            "annotations are; it names the classes: leave it beside train.json, as labels.json, "
            "and pass that",
        ),
        (
            {"t.json": '{"a": {"annotations": {"label": "x"}}}'},
            "t.json",
            "annotations are; for Kinetics, use the csv of the same split: `hiera-video prepare "
            "kinetics --csv train.csv --videos FOLDER`",
        ),
        (
            {"t.json": '[{"id": "1"}]'},
            "t.json",
            "videos: no such folder; put the videos of t.json there or set data.root",
        ),
        (
            {"t.json": '[{"id": "1"}]', "videos/1.mp4": ""},
            "t.json",
            "labels.json: no such file; t.json needs it for the class indices (some copies of "
            "Something-Something call it something-something-v2-labels.json: rename it)",
        ),
        (
            {
                "t.json": '[{"id": "1", "template": "X"}]',
                "videos/1.mp4": "",
                "labels.json": '["Y"]',
            },
            "t.json",
            "t.json: entry 0: template 'X' is not in",
        ),
        (
            {
                "t.json": '[{"id": "../1", "template": "Y"}]',
                "videos/1.mp4": "",
                "labels.json": '["Y"]',
            },
            "t.json",
            "t.json: entry 0: '../1.webm' lies outside",
        ),
    ],
)
def test_bad_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], source: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in files.items():
        write(tmp_path / name, content)
    with pytest.raises(ManifestError, match=re.escape(words)):
        read_manifest(source)


def test_annotations_do_not_name_folders_of_frames(tmp_path: Path) -> None:
    source = write(tmp_path / "train.json", '[{"id": "1", "template": "X"}]')
    words = (
        f"{source}: names videos, and data.decoder=frames reads folders of frames; make their list "
        f"with `hiera-video prepare ssv2 --json {source} --frames FOLDER`"
    )
    with pytest.raises(ManifestError, match=re.escape(words)):
        read_manifest(source, frames=FRAMES)


def test_paths_may_be_objects(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("a.mp4 0\n")
    assert read_manifest(tmp_path / "list.csv") == read_manifest(f"{tmp_path}/list.csv")
    with pytest.raises(ManifestError, match=r"gone.csv: no such file or folder; `hiera-video"):
        read_manifest(tmp_path / "gone.csv")


def test_a_missing_root(tmp_path: Path) -> None:
    listing = write(tmp_path / "t.csv", "a.mp4 0\n")
    with pytest.raises(ManifestError, match=r"data.root=nowhere: no such folder"):
        read_manifest(listing, root="nowhere")


def test_reads_without_torch() -> None:
    code = (
        "import sys, hiera_video.data.manifest.read; "
        "assert not {'torch', 'numpy', 'av'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def make_linked_folder(tmp_path: Path) -> Path:
    """Return a folder of classes: a folder, a link, a link inside a class, and a linked file."""
    for name in ("videos/a/1.mp4", "disk/b/2.mp4", "disk/more/3.mp4", "disk/4.mp4"):
        write(tmp_path / name, "")
    (tmp_path / "videos/b").symlink_to(tmp_path / "disk/b")
    (tmp_path / "videos/a/more").symlink_to("../../disk/more")
    (tmp_path / "videos/a/4.mp4").symlink_to(tmp_path / "disk/4.mp4")
    return tmp_path / "videos"


LINKED = [("a/1.mp4", 0), ("a/4.mp4", 0), ("a/more/3.mp4", 0), ("b/2.mp4", 1)]


def test_links_that_leave_a_folder(tmp_path: Path) -> None:
    """I 4.4: class folders and files on another disk, when the user says so."""
    folder = make_linked_folder(tmp_path)
    with pytest.raises(
        ManifestError,
        match=r"is or lies behind a link that leaves .*; set data.follow_links=true \(check-data, ",
    ):
        read_manifest(str(folder))
    for options in ({"follow_links": True}, {"root": str(tmp_path)}, {"root": "/"}):
        found = read_manifest(str(folder), **options)  # type: ignore[arg-type]
        assert [row[:2] for row in rows(found, folder)] == LINKED


def test_links_that_leave_the_root_of_a_list(tmp_path: Path) -> None:
    """I 4.4"""
    folder = make_linked_folder(tmp_path)
    lines = "".join(f"{path} {label}\n" for path, label in LINKED)
    listing = write(folder / "train.csv", lines)
    with pytest.raises(ManifestError, match=r"train.csv:2: 'a/4.mp4' is or lies behind a link"):
        read_manifest(listing)
    found = read_manifest(listing, follow_links=True)
    assert [row[:2] for row in rows(found, folder)] == LINKED
    absolute = write(folder / "abs.csv", "".join(f"{folder}/{p} {label}\n" for p, label in LINKED))
    assert len(read_manifest(absolute, root=str(tmp_path)).records) == 4
    with pytest.raises(ManifestError, match=r"'../x.mp4' lies outside"):  # still confined
        read_manifest(write(folder / "up.csv", "../x.mp4 0\n"), follow_links=True)


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    """I 4.4"""
    write(tmp_path / "videos/a/1.mp4", "")
    (tmp_path / "videos/a/loop").symlink_to("..")
    (tmp_path / "videos/b").symlink_to("a")
    found = read_manifest(str(tmp_path / "videos"), follow_links=True)
    names = [row[0] for row in rows(found, tmp_path / "videos")]
    assert names == ["a/1.mp4", "b/1.mp4"]
