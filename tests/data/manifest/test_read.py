"""Lists, folders and annotation files; every bad line is answered with file:line, the value and the remedy."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest
from hiera_video.errors import ManifestError


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def rows(manifest: Manifest, root: Path) -> list[tuple[object, ...]]:
    return [
        (str(Path(r.path).relative_to(root)), r.label, r.start_seconds, r.end_seconds)
        for r in manifest.records
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a.mp4 0\nb.mp4 1\n", [("a.mp4", 0), ("b.mp4", 1)]),
        ("a.mp4,0\nb.mp4,1", [("a.mp4", 0), ("b.mp4", 1)]),
        ("a.mp4::0\nb.mp4::1", [("a.mp4", 0), ("b.mp4", 1)]),
        ("a.mp4\t0\nsub dir/b.mp4\t1", [("a.mp4", 0), ("sub dir/b.mp4", 1)]),
        ("\ufeffa.mp4 0\r\nb.mp4 1\r\n\r\n", [("a.mp4", 0), ("b.mp4", 1)]),
        ("my clip 3.mp4 0\nан élan.webm   1", [("my clip 3.mp4", 0), ("ан élan.webm", 1)]),
        ("a, b 7.MP4,0\nc.mp4,1", [("a, b 7.MP4", 0), ("c.mp4", 1)]),
        ("a,b.mp4 0\nc.mp4 1", [("a,b.mp4", 0), ("c.mp4", 1)]),
        ('"a, 1.mp4",0\nc.mp4,1', [("a, 1.mp4", 0), ("c.mp4", 1)]),
        (
            "x.mp4/b.mkv 0\nno_suffix 1\nwith space too 1",
            [("x.mp4/b.mkv", 0), ("no_suffix", 1), ("with space too", 1)],
        ),
        ("a.mp4\nb c.mp4\n", [("a.mp4", None), ("b c.mp4", None)]),
        ("a.mp4 3;7;3\nb.mp4 1", [("a.mp4", (3, 7)), ("b.mp4", (1,))]),
        ("a.mp4,3;\nb.mp4,1", [("a.mp4", (3,)), ("b.mp4", (1,))]),
    ],
)
def test_lists(tmp_path: Path, content: str, expected: list[tuple[object, ...]]) -> None:
    manifest = read_manifest(write(tmp_path / "train.csv", content))
    assert [row[:2] for row in rows(manifest, tmp_path)] == expected
    assert [record.row for record in manifest.records] == list(range(len(expected)))
    assert manifest.multi_label == isinstance(expected[0][1], tuple)


def test_untrimmed_records_and_class_count(tmp_path: Path) -> None:
    manifest = read_manifest(
        write(tmp_path / "a.csv", "film 1.mp4 4 0 10.5\nfilm 1.mp4 2 10.5 20\n")
    )
    assert rows(manifest, tmp_path) == [("film 1.mp4", 4, 0, 10.5), ("film 1.mp4", 2, 10.5, 20)]
    assert (manifest.num_classes, manifest.class_names, manifest.multi_label) == (5, None, False)
    assert read_manifest(write(tmp_path / "b.csv", "a.mp4\n")).num_classes == 0


def test_root_and_separator(tmp_path: Path) -> None:
    source = write(tmp_path / "lists/train.csv", "a.mp4|1\n")
    manifest = read_manifest(source, root=str(tmp_path), separator="|")
    assert manifest.records[0].path == str(tmp_path / "a.mp4")
    inside = write(tmp_path / "lists/abs.csv", f"{tmp_path}/x/a.mp4 1\n")
    assert read_manifest(inside, root=str(tmp_path)).records[0].path == str(tmp_path / "x/a.mp4")
    assert read_manifest(inside, root="/").records[0].path == str(tmp_path / "x/a.mp4")


def test_class_names_beside_a_list(tmp_path: Path) -> None:
    source = write(tmp_path / "train.csv", "a.mp4 1\n")
    write(tmp_path / "labels.txt", "abseiling\nair drumming\nzumba\n")
    manifest = read_manifest(source)
    assert manifest.class_names == ("abseiling", "air drumming", "zumba")
    assert manifest.num_classes == 3
    (tmp_path / "labels.txt").unlink()
    write(tmp_path / "labels.json", '{"b": "1", "a": "0"}')
    assert read_manifest(source).class_names == ("a", "b")


def test_classes_may_be_called_like_splits(tmp_path: Path) -> None:
    for name in ("test/a.mp4", "train/b.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert read_manifest(str(tmp_path)).class_names == ("test", "train")


def test_folders(tmp_path: Path) -> None:
    for name in (
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
    ]
    assert manifest.class_names == ("a", "b c")
    for name in ("2.mp4", "1.mp4"):
        write(tmp_path / "flat" / name, "")
    flat = read_manifest(str(tmp_path / "flat"))
    assert [row[:2] for row in rows(flat, tmp_path / "flat")] == [("1.mp4", None), ("2.mp4", None)]
    assert (flat.class_names, flat.num_classes) == (None, 0)


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
    ("content", "words"),
    [
        ("", "train.csv: is empty; write one `path label` line per video"),
        ("\n \n", "train.csv: is empty"),
        (
            "a.mp4 0\nb.mp4 -1",
            "train.csv:2: label '-1' is not a class index: must be a whole number from 0",
        ),
        ("a.mp4 0\n\nb.mp4 1.0", "train.csv:3: label '1.0' is not a class index"),
        ("a.mp4 0\nb.mp4 cat", "train.csv:2: label 'cat' is not a class index"),
        ("a.mp4 0\nb.mp4 1;;2", "train.csv:2: label '' is not a class index"),
        (
            "a.mp4 0\nb.mp4 3",
            "train.csv:2: label 3 is too high: {folder}/labels.txt names 2 classes, 0 to 1",
        ),
        (
            "path,label\na.mp4,0",
            "train.csv:1: label 'label' is not a class index: must be a whole number from 0, several",
        ),
        ("path,label\na.mp4,0", "; remove a header line"),
        (
            "a.mp4 0\n../b.mp4 1",
            "train.csv:2: '../b.mp4' lies outside {folder}; set data.root to a folder that holds all",
        ),
        ("a.mp4 0\nx/../../b.mp4 1", "train.csv:2: 'x/../../b.mp4' lies outside"),
        ("a.mp4 0\n/etc/b.mp4 1", "train.csv:2: '/etc/b.mp4' lies outside"),
        (
            "a.mp4 0\nout.mp4 1",
            "train.csv:2: 'out.mp4' is or lies behind a link that leaves {folder}; set data.root",
        ),
        (
            "a.mp4 0\nout_dir/b.mp4 1",
            "train.csv:2: 'out_dir/b.mp4' is or lies behind a link that leaves",
        ),
        (
            "https://x.org/a.mp4 0",
            "train.csv:1: 'https://x.org/a.mp4' is a URL, and videos are read from disk; download",
        ),
        (
            "a.mp4 0\nb.mp4 1\na.mp4 0",
            "train.csv:3: 'a.mp4' is also on line 1; remove one of them",
        ),
        ("a.mp4 0\nx/../a.mp4 0", "train.csv:2: 'x/../a.mp4' is also on line 1"),
        (
            "a.mp4 0 5 2",
            "train.csv:1: ends at 2 s, before its start at 5 s; swap or correct the columns",
        ),
        (
            "a.mp4 0 -1 2",
            "train.csv:1: time '-1' must be seconds from the video's start, 0 or more",
        ),
        ("a.mp4 0 nan 2", "train.csv:1: time 'nan' must be seconds"),
        ("a.mp4 0\nb.mp4 1 2", "train.csv:2: "),
        (b"a.mp4 0\n\xff\xfe.mp4 1", "train.csv:2: is not UTF-8 text; save the file as UTF-8"),
        (b"a.mp4 0\nb\0.mp4 1", "train.csv:2: holds a NUL character; is this a text file?"),
        (
            "a.mp4|0\n",
            "train.csv:1: cannot detect the separator of path and label in 'a.mp4|0'; write",
        ),
        (
            "a.mp4 0\n" + "x" * 9000 + ".mp4 1",
            "train.csv:2: 9006 characters in one line; is this a list of videos?",
        ),
    ],
)
def test_bad_lists(tmp_path: Path, content: str | bytes, words: str) -> None:
    folder = tmp_path / "set"
    write(folder / "labels.txt", "cat\ndog\n")
    write(tmp_path / "outside/b.mp4", "")
    (folder / "out.mp4").symlink_to(tmp_path / "outside/b.mp4")
    (folder / "out_dir").symlink_to(tmp_path / "outside")
    with pytest.raises(ManifestError, match=re.escape(words.format(folder=folder))):
        read_manifest(write(folder / "train.csv", content))


def test_links_inside_the_root_are_fine(tmp_path: Path) -> None:
    write(tmp_path / "real/a.mp4", "")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "b.mp4").symlink_to("real/a.mp4")
    assert len(read_manifest(write(tmp_path / "t.csv", "link/a.mp4 0\nb.mp4 1\n")).records) == 2


@pytest.mark.parametrize(
    ("files", "source", "words"),
    [
        (
            {},
            "data/k400/train.csv",
            "data/k400/train.csv: no such file or folder; datasets/kinetics/README.md explains how",
        ),
        (
            {},
            "my/train.csv",
            "my/train.csv: no such file or folder; datasets/folder/README.md explains how",
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
            "d: contains train and val with folders of their own, which are splits rather than classes; pass one of them, d/train",
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
            {"t.json": '[{"id": "1"}]'},
            "t.json",
            "videos: no such folder; put the videos of t.json there or set data.root",
        ),
        (
            {"t.json": '[{"id": "1"}]', "videos/1.mp4": ""},
            "t.json",
            "labels.json: no such file; t.json needs it for the class indices",
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
        (
            {"t.csv": "a.mp4 0", "labels.json": '{"a": 1}'},
            "t.csv",
            "must be a list of names, or map each name to its index",
        ),
        (
            {"t.csv": "a.mp4 0", "labels.json": '{"a": "x"}'},
            "t.csv",
            "labels.json: must be a list of names",
        ),
        (
            {"t.csv": "a.mp4 0", "labels.txt": "a\n\nb"},
            "t.csv",
            "labels.txt:2: is empty; line i names class i - 1",
        ),
        (
            {"t.csv": "a.mp4 0", "labels.txt": "a\nb\na"},
            "t.csv",
            "labels.txt:3: class 'a' is also on line 1",
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
    with pytest.raises(ManifestError, match=r"data.root=nowhere: no such folder"):
        read_manifest("t.csv", root="nowhere")


def test_training_needs_labels(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path / "a.csv", "a.mp4 0\nb.mp4\n"))
    with pytest.raises(
        ManifestError,
        match=r"b.mp4 has no label; write `path label` lines or put the videos into one",
    ):
        manifest.require_labels()


def test_reads_without_torch() -> None:
    code = "import sys, hiera_video.data.manifest.read; assert not {'torch', 'numpy', 'av'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
