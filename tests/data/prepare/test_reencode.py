"""Copies of a data set: their list, what an interrupted run resumes, and what is refused."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hiera_video.data.loading.quarantine import QuarantinePolicy
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.prepare import transcode
from hiera_video.data.prepare.reencode import (
    ReencodeResult,
    VideoCopy,
    plan_copies,
    reencode,
    shift_segment,
)
from hiera_video.data.prepare.reencode_config import ReencodeConfig
from hiera_video.errors import ConfigError, ManifestError
from hiera_video.video import open_video
from hiera_video.video.options import ShardVideo

READABLE = ("h264_bframes.mp4", "variable_rate_from_5s.mkv", "gif.gif")
UNREADABLE = {
    "hole.mp4": "corrupt",
    "truncated_50.mkv": "truncated",
    "text.mp4": "container",
    "gone.mp4": "missing",
}


def listed(*paths: Path | str, **facts: Any) -> Manifest:
    records = tuple(
        Record(path=str(path), label=row % 3, row=row, **facts) for row, path in enumerate(paths)
    )
    return Manifest(
        records=records, class_names=("a", "b", "c"), multi_label=False, source="list.csv"
    )


def run(
    manifest: Manifest,
    folder: Path,
    name: str = "train",
    *,
    config: ReencodeConfig | None = None,
    root: Path | None = None,
    workers: int = 0,
    **options: Any,
) -> ReencodeResult:
    return reencode(
        manifest,
        folder,
        name,
        config or ReencodeConfig(),
        root=root or Path(manifest.records[0].path).parent,
        workers=workers,
        quarantine=QuarantinePolicy(),
        **options,
    )


def test_copies_and_their_list(corpus: dict[str, Path], tmp_path: Path) -> None:
    manifest = listed(*(corpus[name] for name in (*READABLE, *UNREADABLE)))
    out = tmp_path / "out"
    done = run(manifest, out, root=corpus["gone.mp4"].parents[1], workers=2)
    assert (done.written, done.existed, done.unreadable) == (len(READABLE), 0, len(UNREADABLE))
    found = read_manifest(str(done.manifest))
    assert found.class_names == ("a", "b", "c")
    assert [record.label for record in found.records] == [0, 1, 2]
    for name, record in zip(READABLE, found.records):
        with open_video(corpus[name]) as old, open_video(record.path) as new:
            assert new.info.num_frames == old.info.num_frames
    failures = [json.loads(line) for line in (out / "train.broken.jsonl").read_text().splitlines()]
    assert {Path(item["path"]).name: item["reason"] for item in failures} == UNREADABLE
    assert all(item["message"].startswith(item["path"]) for item in failures)
    left = [path for path in out.iterdir() if path.is_file() or path.name.startswith(".")]
    assert sorted(path.name for path in left) == [
        *("labels.txt", "reencode.json", "train.broken.jsonl", "train.csv")
    ]


def test_segments_are_kept(videos: Any, tmp_path: Path) -> None:
    path = videos.write("in/a.mp4", 40, times=[i / 30 + (0.2 if i else 0.0) for i in range(40)])
    segments = tuple(
        Record(path=str(path), label=1, row=i, start_seconds=i + 0.5, end_seconds=i + 1.0)
        for i in range(2)
    )
    manifest = Manifest(records=segments, class_names=None, multi_label=False, source="x")
    found = read_manifest(str(run(manifest, tmp_path / "out").manifest))
    assert [(r.start_seconds, r.end_seconds, r.label) for r in found.records] == [
        (0.5, 1.0, 1),
        (1.5, 2.0, 1),
    ]


def test_segments_move_to_the_copys_clock() -> None:
    """A copy starts at 0 s, so that its segments contain the same frames as the original's."""
    segment = Record(path="x", label=1, row=0, start_seconds=1.5, end_seconds=2.0)
    moved = shift_segment(segment, -1.75)
    assert (moved.start_seconds, moved.end_seconds) == (0.0, 0.25)
    whole = Record(path="x", label=1, row=0)
    assert shift_segment(whole, -1.75) == whole


def test_a_second_run_copies_what_is_missing_or_changed(videos: Any, tmp_path: Path) -> None:
    paths = [videos.write(f"in/{name}", 20) for name in ("x/a.mp4", "x/a.mkv", "y/b.mp4")]
    out = tmp_path / "out"
    assert run(listed(*paths), out, root=tmp_path / "in").written == 3
    copies = sorted(str(path.relative_to(out)) for path in out.rglob("*.mp4"))
    assert copies == ["x/a.mkv.mp4", "x/a.mp4", "y/b.mp4"]  # two originals never share a copy
    # not by inode: a new file may get that of a deleted one
    before = {name: (out / name).stat().st_ctime_ns for name in copies}
    (out / "x/a.mkv.mp4").unlink()
    videos.write("in/y/b.mp4", 25)
    os.utime(paths[2], (0, 0))  # another video with another date
    second = run(listed(*paths), out, root=tmp_path / "in")
    assert (second.written, second.existed, second.unreadable) == (2, 1, 0)
    after = {name: (out / name).stat().st_ctime_ns for name in copies}
    assert [name for name in copies if before[name] == after[name]] == ["x/a.mp4"]
    with open_video(out / "y/b.mp4") as video:
        assert video.info.num_frames == 25


@pytest.mark.fault
def test_a_killed_run_leaves_no_partial_copy_and_resumes(
    videos: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = listed(*(videos.write(f"in/{number}.mp4", 10) for number in range(4)))
    out, write_video = tmp_path / "out", transcode.write_video
    calls = 0

    def die_in_the_third(path: Path, *arguments: Any, **options: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 3:
            path.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        return write_video(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(transcode, "write_video", die_in_the_third)
        process = multiprocessing.get_context("fork").Process(target=run, args=(manifest, out))
        process.start()
        process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert sorted(path.name for path in out.glob("*.mp4")) == ["0.mp4", "1.mp4"]
    assert not (out / "train.csv").exists()
    done = run(manifest, out)
    assert (done.written, done.existed, done.unreadable) == (2, 2, 0)
    assert not list(out.glob(".*")) and len(read_manifest(str(done.manifest)).records) == 4


def test_a_full_disk_is_one_error(
    videos: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transcode, "write_video", fail)
    with pytest.raises(
        ConfigError,
        match=r"out/a.mp4: cannot be written .*No space left.*; run the command again to resume",
    ):
        run(listed(videos.write("in/a.mp4", 5)), tmp_path / "out")


def test_a_folder_has_copies_of_one_setting_and_source(videos: Any, tmp_path: Path) -> None:
    path = videos.write("in/a.mp4", 5)
    run(listed(path), tmp_path / "out")
    words = r"out: has copies with other settings or of other originals .*'crf': 23.*choose anothe"
    with pytest.raises(ConfigError, match=words):
        run(listed(path), tmp_path / "out", config=ReencodeConfig(crf=30))
    with pytest.raises(ConfigError, match=words):
        run(listed(path), tmp_path / "out", root=tmp_path)
    with pytest.raises(ConfigError, match=r"--reencode .*/in: is the folder of the originals; cho"):
        run(listed(path), tmp_path / "in")


def test_a_list_without_readable_videos(tmp_path: Path) -> None:
    with pytest.raises(
        ManifestError,
        match=r"list.csv: none of its videos is readable; first: .*gone.mp4: no such",
    ):
        run(listed(tmp_path / "in/gone.mp4"), tmp_path / "out", root=tmp_path)
    with pytest.raises(ManifestError, match=r"list.csv: has no videos to re-encode"):
        run(listed(), tmp_path / "out", root=tmp_path)


def test_paths_of_copies() -> None:
    root, out = Path("/v"), Path("/o")
    assert plan_copies(listed("/v/a/x.mp4", "/v/a/x.avi"), root, out) == {
        "/v/a/x.mp4": Path("/o/a/x.mp4"),
        "/v/a/x.avi": Path("/o/a/x.avi.mp4"),
    }
    with pytest.raises(
        ManifestError, match=r"/w/a.mp4: lies outside /v, the root of the tree that the copies foll"
    ):
        plan_copies(listed("/w/a.mp4"), root, out)
    with pytest.raises(
        ManifestError,
        match=r"/v/x.avi.mp4: its copy would be /o/x.avi.mp4, like that of /v/x.avi; rename one",
    ):
        plan_copies(listed("/v/x.avi", "/v/x.avi.mp4"), root, out)
    stored = ShardVideo(shard="a.tar", member="b.mp4", offset=512, size=1)
    for manifest in (
        listed("/v/frames", num_frames=3),
        listed(stored.path, shard_video=stored),
    ):
        with pytest.raises(ManifestError, match=r"is not a video file; only files can be re-encod"):
            plan_copies(manifest, root, out)


def test_lists_in_one_folder_share_the_first_ones_classes(videos: Any, tmp_path: Path) -> None:
    for name in ("train/a/0", "train/b/0", "train/c/0", "val/b/0", "val/c/0", "test/d/0"):
        videos.write(f"v/{name}.mp4", 5)
    out = tmp_path / "out"

    def copy_split(split: str) -> list[tuple[str, str]]:
        source = read_manifest(str(tmp_path / "v" / split))
        done = run(source, out, split, root=tmp_path / "v")
        found = read_manifest(str(done.manifest))
        assert found.class_names == ("a", "b", "c")
        return [
            (Path(record.path).parent.name, found.class_names[int(str(record.label))])
            for record in found.records
        ]

    assert copy_split("train") == [("a", "a"), ("b", "b"), ("c", "c")]
    assert copy_split("val") == [("b", "b"), ("c", "c")]
    assert copy_split("train") == [("a", "a"), ("b", "b"), ("c", "c")]
    with pytest.raises(
        ManifestError, match=r"v/test: has the class 'd', which .*/out/labels.txt lacks, and they"
    ):
        copy_split("test")
    assert not (out / "test").exists()
    assert (out / "labels.txt").read_text() == "a\nb\nc\n"


def test_two_splits_may_be_copied_at_the_same_time(videos: Any, tmp_path: Path) -> None:
    train, val = (
        listed(*(videos.write(f"v/{split}/{i}.mp4", 5) for i in range(2)))
        for split in ("train", "val")
    )
    out, done = tmp_path / "out", dict[str, ReencodeResult]()

    def copy_val_meanwhile(copies: Iterator[VideoCopy], _: int) -> Iterator[VideoCopy]:
        yield next(copies)
        unfinished = out / ".train.unfinished/half.mp4"
        unfinished.touch()
        done["val"] = run(val, out, "val", root=tmp_path / "v")
        assert unfinished.exists()
        yield from copies

    done["train"] = run(train, out, root=tmp_path / "v", progress=copy_val_meanwhile)
    assert [(result.written, result.unreadable) for result in done.values()] == [(2, 0), (2, 0)]
    assert not list(out.glob(".*"))


def test_two_commands_do_not_copy_the_same_list(videos: Any, tmp_path: Path) -> None:
    train, out = listed(*(videos.write(f"v/{i}.mp4", 5) for i in range(2))), tmp_path / "out"
    words = "another command is making the copies of 'train' there; wait for its end or choose"

    def copy_again(copies: Iterator[VideoCopy], _: int) -> Iterator[VideoCopy]:
        yield next(copies)
        with pytest.raises(ConfigError, match=words):
            run(train, out)
        yield from copies

    assert run(train, out, progress=copy_again).written == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train", "train.csv: is the list that is read and would be overwritten"),
        ("val", "val.csv: exists and was not written by this tool"),
    ],
)
def test_no_list_of_the_users_is_overwritten(tmp_path: Path, name: str, words: str) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for split in ("train", "val"):
        (folder / f"{split}.csv").write_text("a.mp4 0\n")
    source = read_manifest(str(folder / "train.csv"), root=str(tmp_path))
    with pytest.raises(ConfigError, match=words):
        run(source, folder, name, root=tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["train.csv", "val.csv"]
