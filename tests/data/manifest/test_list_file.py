"""List files: separators, labels and times; each bad line is reported with file:line."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from hiera_video.data.manifest.list_file import format_line
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Label, Manifest, Record
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


USE_INDEX = (
    "write the class's index instead of its name, from 0, and the names in their order into "
    "labels.txt beside the list"
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "train.csv: is empty; write one `path label` line per video"),
        ("\n \n", "train.csv: is empty"),
        (
            "a.mp4 0\nb.mp4 -1",
            "train.csv:2: label '-1' is not a class index: must be a whole number from 0, several "
            'joined by `;`; write `""` for a video without label',
        ),
        ("dir 24 -1", """label '-1' is not .*; write `""` for a video without label"""),
        ("a.mp4 0\n\nb.mp4 1.0", "train.csv:3: label '1.0' is not .*; write 1$"),
        ("a.mp4,0.0", "train.csv:1: label '0.0' is not .*; write 0$"),
        ('"a.mp4","1"', """train.csv:1: label '"1"' is not .*; write 1$"""),
        ("a.mp4 0\nb.mp4 1.5", "train.csv:2: label '1.5' is not .*; correct it$"),
        ("a.mp4 0\nb.mp4 cat", f"train.csv:2: label 'cat' is not .*`;`; {USE_INDEX}"),
        ("a.mp4,cat", f"train.csv:1: label 'cat' is not .*`;`; {USE_INDEX}"),
        ("a.mp4,cat,4,1", f"train.csv:1: label 'cat' is not .*`;`; {USE_INDEX}"),
        *(
            (f"a.mp4{sign}brush hair", f"train.csv:1: label 'brush hair' is not .*x; {USE_INDEX}")
            for sign in (" ", ",", "\t", "::")
        ),
        ("a.mp4 playing the lute", f"train.csv:1: label 'playing the lute' is not .*; {USE_INDEX}"),
        (
            "path,label\na.mp4,brush hair",
            f"train.csv:2: label 'brush hair' is not a class index; {USE_INDEX}",
        ),
        ("a.mp4 0\nb.mp4 1;;2", "train.csv:2: label '' is not a class index"),
        (
            "a.mp4 0\nb.mp4 3",
            "train.csv:2: label 3 is too high: {folder}/labels.txt names 2 classes, 0 to 1",
        ),
        (
            "path,label\na.mp4,0",
            "train.csv:1: label 'label' is not a class index: must be a whole number from 0, seve",
        ),
        ("path,label\na.mp4,0", f"`;`; remove a header line, or {USE_INDEX}"),
        (
            "a.mp4 0\n../b.mp4 1",
            "train.csv:2: '../b.mp4' lies outside {folder}; set data.root to a folder that holds",
        ),
        ("a.mp4 0\nx/../../b.mp4 1", "train.csv:2: 'x/../../b.mp4' lies outside"),
        ("a.mp4 0\n/etc/b.mp4 1", "train.csv:2: '/etc/b.mp4' lies outside"),
        (
            "a.mp4 0\nout.mp4 1",
            "train.csv:2: 'out.mp4' is or lies behind a link that leaves {folder}; set "
            "data.follow_links=true",
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
            "train.csv:3: 'a.mp4' is also on line 1; remove one of them (to train on some videos "
            "more often, use data.train_repeats or train.balanced_sampling=true)",
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
        (
            b"a.mp4 0\n\xff\xfe.mp4 1",
            r"train.csv:2: '\udcff\udcfe.mp4' is not UTF-8 text, and there is no file of this "
            "name; save the list as UTF-8",
        ),
        (b"a.mp4 0\nb\0.mp4 1", "train.csv:2: holds a NUL character; is this a text file?"),
        (
            "a.mp4|0\n",
            "train.csv:1: cannot detect the separator of path and label in 'a.mp4|0'; write "
            "`path label`, with class indices from 0, or set data.separator (tried `::`, tab, ",
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
    pattern = re.escape(words.format(folder=folder)).replace(r"\.\*", ".*").replace(r"\$", "$")
    with pytest.raises(ManifestError, match=pattern):
        read_manifest(write(folder / "train.csv", content))


def test_links_inside_the_root_are_fine(tmp_path: Path) -> None:
    write(tmp_path / "real/a.mp4", "")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "b.mp4").symlink_to("real/a.mp4")
    assert len(read_manifest(write(tmp_path / "t.csv", "link/a.mp4 0\nb.mp4 1\n")).records) == 2


def test_written_lines_read_back(tmp_path: Path) -> None:
    """`format_line` writes every kind of record so that `read_manifest` returns it."""

    def record(row: int, path: str, label: Label = None, **facts: Any) -> Record:
        return Record(path=str(tmp_path / path), label=label, row=row, **facts)

    for records in (
        [record(0, "74225", num_frames=5), record(1, "a b/x", num_frames=7)],
        [
            record(0, "74225", 3, num_frames=5),
            record(1, "7", num_frames=7),
            record(2, "9", 0, num_frames=1),
        ],
        [
            record(0, "7", (3,), num_frames=5),
            record(1, "8", num_frames=7),
            record(2, "9", (1, 2), num_frames=1),
        ],
        [record(0, "a.mp4"), record(1, "b c.MKV", 4), record(2, "d 5.mp4/e f", 5)],
        [
            record(0, "clips/0001"),
            record(1, "clips/my 2"),
            record(2, "clips/3", 1, start_seconds=0.5, end_seconds=2.0),
        ],
        [
            record(0, "a.mp4", (1,)),
            record(1, "b.mp4"),
            record(2, "b.mp4", (1, 2), start_seconds=0.0, end_seconds=1.0),
        ],
    ):
        listing = tmp_path / "list.csv"
        listing.write_text(
            "".join(
                format_line(record, os.path.relpath(record.path, tmp_path)) for record in records
            )
        )
        assert read_manifest(str(listing)).records == tuple(records)
    for name in ("7.mp4", "clip 3"):
        with pytest.raises(
            ManifestError,
            match=f"{name}': is a folder of frames whose name ends like a video file's or with",
        ):
            format_line(record(0, name, 1, num_frames=3), name)


def test_multi_label_lists_of_other_toolkits(tmp_path: Path) -> None:
    """I 3.3: MMAction2's `path 1 3 5`, with blanks, commas and `;`; a video without a class."""
    content = 'a.mp4 1 3 5\nb c.mp4 2,4\nd.mp4 6;7\ne.mp4\nf.mp4 ""\nplain 0 9\n'
    manifest = read_manifest(write(tmp_path / "a.txt", content), multi_label=True)
    assert manifest.multi_label
    assert [row[:2] for row in rows(manifest, tmp_path)] == [
        ("a.mp4", (1, 3, 5)),
        ("b c.mp4", (2, 4)),
        ("d.mp4", (6, 7)),
        ("e.mp4", ()),
        ("f.mp4", ()),
        ("plain", (0, 9)),
    ]
    commas = read_manifest(write(tmp_path / "b.csv", "a.mp4,1,3\nb.mp4,2\n"), multi_label=True)
    assert [record.label for record in commas.records] == [(1, 3), (2,)]
    frames = "some/directory-1 163 1 3 5\nsome/directory-2 122 1\n"
    manifest = read_manifest(write(tmp_path / "c.txt", frames), multi_label=True)
    assert [(r.num_frames, r.label) for r in manifest.records] == [(163, (1, 3, 5)), (122, (1,))]


@pytest.mark.parametrize("line", ["a.mp4 1 3", "a.mp4 1 3 5 7", "a.mp4 1 x 3 2", "dir 163 1 3 5"])
def test_columns_that_cannot_be_read(tmp_path: Path, line: str) -> None:
    """I 3.3: a known suffix followed by columns that are neither a label nor times."""
    with pytest.raises(
        ManifestError,
        match=re.escape(
            f"train.csv:2: {line!r} is not `path label [start_seconds end_seconds]`; correct it, "
            "put the path into quotes or set data.separator; if all columns after the path are "
            "labels, set data.multi_label=true"
        ),
    ):
        read_manifest(write(tmp_path / "train.csv", f"b.mp4 0\n{line}\n"))


def test_whole_seconds_are_questioned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """I 3.3: `a.mp4 1 3 5` may be three labels."""
    read_manifest(write(tmp_path / "a.csv", "a.mp4 1 3.0 5.5\n"))
    assert caplog.messages == []
    read_manifest(write(tmp_path / "b.csv", "a.mp4 1 3 5\n"))
    assert caplog.messages == [
        f"warning: {tmp_path}/b.csv: three columns after a path are its label, start and end in "
        "seconds (video 1: label 1, 3 s to 5 s); if all are labels, set data.multi_label=true"
    ]


def test_a_label_with_commas_names_the_key(tmp_path: Path) -> None:
    """I 3.3"""
    with pytest.raises(ManifestError, match=r"label '1,3' is not .*; set data.multi_label=true"):
        read_manifest(write(tmp_path / "a.csv", "b.mp4 0\na.mp4 1,3\n"), separator=" ")


def test_a_video_without_a_class_is_no_unlabelled_video(tmp_path: Path) -> None:
    """I 3.3: `;` is a multi-label video that shows none of the classes, `""` an unlabelled one."""
    manifest = read_manifest(write(tmp_path / "a.csv", 'a.mp4 1;3\nb.mp4 ;\nc.mp4 ""\n'))
    assert [record.label for record in manifest.records] == [(1, 3), (), None]
    written = "".join(format_line(r, Path(r.path).name) for r in manifest.records)
    assert read_manifest(write(tmp_path / "b.csv", written)).records == manifest.records


@pytest.mark.parametrize("name", ["a\nb.mp4", 'a" 1.mp4\n', '"e" f.mp4', 'x" 1'])
def test_names_that_a_list_cannot_hold(tmp_path: Path, name: str) -> None:
    """I 4.3, 4.10"""
    with pytest.raises(
        ManifestError, match="has a line break or quotes in its name, which a list cannot hold"
    ):
        format_line(Record(path=f"/{name}", label=1, row=0), name)


@pytest.mark.parametrize("name", [" a.mp4", "b /c.mp4", "\td", 'e" f.mp4', "g 1 2", "h.mp4 i"])
def test_blanks_and_quotes_in_names(tmp_path: Path, name: str) -> None:
    """I 4.10: written names read back."""
    record = Record(path=str(tmp_path / name), label=1, row=0)
    listing = write(tmp_path / "a.csv", format_line(record, name))
    assert read_manifest(listing).records == (record,)


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    """I 4.3: a list may hold the bytes of such a name if the file exists."""
    name = os.fsdecode(b"caf\xe9.mp4")
    write(tmp_path / name, "")
    record = Record(path=str(tmp_path / name), label=1, row=0)
    line = format_line(record, name).encode(errors="surrogateescape")
    assert line == b"caf\xe9.mp4 1\n"
    assert read_manifest(write(tmp_path / "a.csv", line)).records == (record,)
