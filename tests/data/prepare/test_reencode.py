"""Copies have their originals' frames and times, one for one; a killed run goes on; broken videos are listed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiera_video.data.loading.quarantine import QuarantinePolicy
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.prepare import reencode as module
from hiera_video.data.prepare.reencode import (
    constant_rate,
    copies_of,
    reencode,
    same_times,
    size_of,
)
from hiera_video.data.prepare.reencode_config import Recipe
from hiera_video.errors import ConfigError, ManifestError
from hiera_video.video import open_video
from hiera_video.video.options import ShardVideo
from hiera_video.video.packets import PacketSource
from hiera_video.video.pyav import PyAVReader
from hiera_video.video.reader import Limits
from hiera_video.video.sources import byte_source

SPELLED = (
    *(
        "h264_bframes.mp4",
        "h264_25fps.mp4",
        "h264.ts",
        "h264.flv",
        "vp8.webm",
        "hevc.mkv",
        "mpeg4.avi",
        "gif.gif",
    ),
    *(
        "variable_rate_from_5s.mp4",
        "variable_rate_from_5s.mkv",
        "trimmed_12.mp4",
        "long_gop.mp4",
        "h264_444.mp4",
    ),
    *("audio_first.mp4", "size_changes.ts", "one_frame.mp4"),
)
BROKEN = {
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
    recipe: Recipe | None = None,
    *,
    root: Path | None = None,
    workers: int = 0,
) -> module.Reencoded:
    root = root or Path(manifest.records[0].path).parent
    return reencode(
        manifest,
        folder,
        "train",
        recipe or Recipe(),
        root=root,
        workers=workers,
        quarantine=QuarantinePolicy(),
    )


def test_frames_and_times_are_kept_and_broken_videos_listed(
    corpus: dict[str, Path], videos: Any, tmp_path: Path
) -> None:
    names = [*SPELLED, *BROKEN]
    manifest = listed(*(corpus[name] for name in names))
    done = run(manifest, tmp_path / "out", root=corpus["gone.mp4"].parents[1], workers=2)
    assert (done.written, done.done_before, done.broken) == (len(SPELLED), 0, len(BROKEN))
    found = read_manifest(str(done.manifest))
    assert found.class_names == ("a", "b", "c")
    assert [record.label for record in found.records] == [row % 3 for row in range(len(SPELLED))]
    for name, record in zip(SPELLED, found.records):
        with open_video(corpus[name]) as old, open_video(record.path) as new:
            moved, constant = (
                [time - old.times[0] for time in old.times],
                constant_rate(old.times, old.fps),
            )
            assert new.times == pytest.approx(moved, abs=0.001 if constant else 1e-5), name
            assert new.fps == pytest.approx(old.fps, rel=1e-6 if constant else 0.02), name
            assert new.info.codec == "h264"
            before, after = (video.frames(range(len(new.times))) for video in (old, new))
        assert before.shape[1:3] == after.shape[1:3] or name == "h264_444.mp4"
        if name != "h264_444.mp4":  # 47 rows become 48
            assert videos.numbers(after) == videos.numbers(before), name
    broken = [
        json.loads(line) for line in (tmp_path / "out/train.broken.jsonl").read_text().splitlines()
    ]
    assert {Path(item["path"]).name: item["reason"] for item in broken} == BROKEN
    assert all(item["message"].startswith(item["path"]) for item in broken)
    left = sorted(
        path.name
        for path in (tmp_path / "out").iterdir()
        if path.is_file() or path.name.startswith(".")
    )
    assert left == ["labels.txt", "reencode.json", "train.broken.jsonl", "train.csv"]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_applied(corpus: dict[str, Path], tmp_path: Path, degrees: int) -> None:
    path = corpus[f"rotated_{degrees}.mp4"]
    done = run(listed(path), tmp_path / "out")
    with (
        open_video(path) as old,
        open_video(read_manifest(str(done.manifest)).records[0].path) as new,
    ):
        assert new.info.rotation == 0 and (new.info.width, new.info.height) == (
            old.info.width,
            old.info.height,
        )
        assert np.abs(new.frames([7]).astype(int) - old.frames([7])).mean() < 12


def test_size_and_key_frames(videos: Any, tmp_path: Path) -> None:
    path = videos.write("in/a.mp4", 100, width=160, height=96, gop=250)
    done = run(listed(path), tmp_path / "out", Recipe(short_side=48, gop=16))
    copy = read_manifest(str(done.manifest)).records[0].path
    packets = PacketSource(byte_source(copy), Limits(), 0)
    keys = [number for number, packet in enumerate(packets.facts) if packet.key]
    packets.close()
    assert keys[0] == 0 and max(b - a for a, b in zip(keys, [*keys[1:], 100])) <= 16
    with open_video(copy) as video:
        assert (video.info.width, video.info.height, video.info.num_frames) == (80, 48, 100)
        assert videos.numbers(video.frames(range(100))) == list(range(100))


def test_stretches_follow_the_clock(corpus: dict[str, Path], videos: Any, tmp_path: Path) -> None:
    """A clip's seconds mean the same frames in the copy, whose clock starts at its first frame."""
    path = videos.write("in/a.mp4", 40, times=[i / 30 + (0.2 if i else 0.0) for i in range(40)])
    manifest = listed(path, path)
    stretches = [
        Record(path=str(path), label=1, row=i, start_seconds=i + 0.5, end_seconds=i + 1.0)
        for i in range(2)
    ]
    manifest = Manifest(records=tuple(stretches), class_names=None, multi_label=False, source="x")
    found = read_manifest(str(run(manifest, tmp_path / "out").manifest))
    assert [(r.start_seconds, r.end_seconds, r.label) for r in found.records] == [
        (0.5, 1.0, 1),
        (1.5, 2.0, 1),
    ]
    moved = module._moved(stretches[1], module.Copied(path="x", start_seconds=1.75))
    assert (moved.start_seconds, moved.end_seconds) == (0.0, 0.25)
    assert (
        module._moved(
            listed("x").records[0], module.Copied(path="x", start_seconds=1.75)
        ).start_seconds
        is None
    )


def test_a_second_run_does_what_is_left(videos: Any, tmp_path: Path) -> None:
    paths = [videos.write(f"in/{name}", 20) for name in ("x/a.mp4", "x/a.mkv", "y/b.mp4")]
    out = tmp_path / "out"
    first = run(listed(*paths), out, root=tmp_path / "in")
    assert first.written == 3
    copies = sorted(str(path.relative_to(out)) for path in out.rglob("*.mp4"))
    assert copies == ["x/a.mkv.mp4", "x/a.mp4", "y/b.mp4"]  # two originals never share a copy
    before = {
        name: (out / name).stat().st_ctime_ns for name in copies
    }  # a new file may get the inode of one that is gone
    (out / "x/a.mkv.mp4").unlink()
    videos.write("in/y/b.mp4", 25)
    os.utime(paths[2], (0, 0))  # another original, of another date
    second = run(listed(*paths), out, root=tmp_path / "in")
    assert (second.written, second.done_before, second.broken) == (2, 1, 0)
    after = {name: (out / name).stat().st_ctime_ns for name in copies}
    assert [name for name in copies if before[name] == after[name]] == ["x/a.mp4"]
    with open_video(out / "y/b.mp4") as video:
        assert video.info.num_frames == 25


def test_a_killed_run_leaves_nothing_half_written_and_goes_on(videos: Any, tmp_path: Path) -> None:
    paths = [videos.write(f"in/{number}.mp4", 150) for number in range(6)]
    out = tmp_path / "out"
    process = multiprocessing.get_context("fork").Process(target=run, args=(listed(*paths), out))
    process.start()
    assert process.pid is not None
    deadline = time.monotonic() + 60
    while len(list(out.glob("*.mp4"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    finished = list(out.glob("*.mp4"))
    assert 2 <= len(finished) < 6 and not (out / "train.csv").exists()
    for path in finished:
        with open_video(path) as video:
            assert video.info.num_frames == 150
    done = run(listed(*paths), out)
    assert (done.written, done.done_before, done.broken) == (6 - len(finished), len(finished), 0)
    assert not list(out.glob(".*")) and len(read_manifest(str(done.manifest)).records) == 6


def test_a_full_disk_stops_with_words(
    videos: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = videos.write("in/a.mp4", 5)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_video", full)
    with pytest.raises(
        ConfigError,
        match=r"out/a.mp4: cannot be written .*No space left.*; the next run goes on from here",
    ):
        run(listed(path), tmp_path / "out")


def test_refusals(videos: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = videos.write("in/a.mp4", 5)
    run(listed(path), tmp_path / "out")
    with pytest.raises(
        ConfigError,
        match=r"out: holds copies by another recipe or of others .*'crf': 23.*choose another folder, or rem",
    ):
        run(listed(path), tmp_path / "out", Recipe(crf=30))
    with pytest.raises(
        ConfigError, match=r"--reencode .*/in: is where the originals are; choose another folder"
    ):
        run(listed(path), tmp_path / "in")
    with pytest.raises(
        ManifestError,
        match=r"list.csv: not one of its videos can be read; the first: .*gone.mp4: no such",
    ):
        run(listed(tmp_path / "in/gone.mp4"), tmp_path / "out2")
    with pytest.raises(ManifestError, match=r"list.csv: holds no videos to re-encode"):
        run(listed(), tmp_path / "out3", root=tmp_path)
    with pytest.raises(
        ManifestError, match=r"in/a.mp4: lies outside .*/other, whose tree the copies follow"
    ):
        run(listed(path), tmp_path / "out3", root=tmp_path / "other")
    stored = ShardVideo(shard="a.tar", member="b.mp4", offset=512, size=1)
    for manifest in (listed("/x/frames", num_frames=3), listed(stored.path, stored=stored)):
        with pytest.raises(
            ManifestError, match=r"is no video file of its own, and only such are re-encoded"
        ):
            copies_of(manifest, tmp_path, tmp_path / "out")
    with pytest.raises(
        ManifestError,
        match=r"/v/x.avi.mp4: its copy would be /o/x.avi.mp4, as that of /v/x.avi; rename one of the two",
    ):
        copies_of(listed("/v/x.avi", "/v/x.avi.mp4"), Path("/v"), Path("/o"))
    for wrong, words in (
        ({"short_side": 8}, "--short-side 8: must be 16 pixels or more"),
        ({"gop": 0}, "--gop 0: must be 1 frame or more"),
        ({"crf": 52}, "--crf 52: must be in 0"),
    ):
        with pytest.raises(ConfigError, match=words):
            Recipe(**wrong)
    monkeypatch.setattr(module, "same_times", lambda *_: False)
    with pytest.raises(
        ManifestError,
        match=r"its copy has other frames or times; give it a constant rate by other means",
    ):
        run(listed(path), tmp_path / "out4")


def test_lists_that_share_a_folder_share_its_classes(videos: Any, tmp_path: Path) -> None:
    for name in ("train/a/0", "train/b/0", "train/c/0", "val/b/0", "val/c/0", "test/d/0"):
        videos.write(f"v/{name}.mp4", 5)

    def copies(split: str) -> list[tuple[str, str]]:
        source, out = read_manifest(str(tmp_path / "v" / split)), tmp_path / "out"
        done = reencode(
            source,
            out,
            split,
            Recipe(),
            root=tmp_path / "v",
            workers=0,
            quarantine=QuarantinePolicy(),
        )
        found = read_manifest(str(done.manifest))
        assert found.class_names == ("a", "b", "c")
        return [
            (Path(record.path).parent.name, found.class_names[int(str(record.label))])
            for record in found.records
        ]

    assert copies("train") == [("a", "a"), ("b", "b"), ("c", "c")]
    assert copies("val") == [("b", "b"), ("c", "c")] and copies("train") == [
        ("a", "a"),
        ("b", "b"),
        ("c", "c"),
    ]
    with pytest.raises(
        ManifestError,
        match=r"v/test: names the class 'd', which .*/out/labels.txt does not, and they",
    ):
        copies("test")
    assert (
        not (tmp_path / "out/test").exists()
        and (tmp_path / "out/labels.txt").read_text() == "a\nb\nc\n"
    )


def test_two_splits_may_be_made_at_the_same_time(videos: Any, tmp_path: Path) -> None:
    train, val = (
        listed(*(videos.write(f"v/{split}/{i}.mp4", 5) for i in range(2)))
        for split in ("train", "val")
    )
    out, done = tmp_path / "out", dict[str, module.Reencoded]()
    options: dict[str, Any] = {
        "root": tmp_path / "v",
        "workers": 0,
        "quarantine": QuarantinePolicy(),
    }

    def meanwhile(copies: Iterator[module.Copied], _: int) -> Iterator[module.Copied]:
        (out / ".train.unfinished" / "half.mp4").touch()
        yield next(copies)
        done["val"] = reencode(val, out, "val", Recipe(), **options)
        assert (out / ".train.unfinished" / "half.mp4").exists()
        yield from copies

    done["train"] = reencode(train, out, "train", Recipe(), progress=meanwhile, **options)
    assert [(one.written, one.broken) for one in done.values()] == [(2, 0), (2, 0)] and not list(
        out.glob(".*")
    )


def test_no_list_of_the_users_is_written_over(videos: Any, tmp_path: Path) -> None:
    videos.write("v/a.mp4", 5)
    listing = tmp_path / "own/train.csv"
    listing.parent.mkdir()
    listing.write_text("a.mp4 0\n")
    source = read_manifest(str(listing), root=str(tmp_path / "v"))
    for name, words in (
        ("train", "train.csv: is the list to be read, and"),
        ("val", "val.csv: is there already, not"),
    ):
        (tmp_path / "own/val.csv").write_text("b.mp4 0\n")
        with pytest.raises(ConfigError, match=words):
            reencode(
                source,
                listing.parent,
                name,
                Recipe(),
                root=tmp_path / "v",
                workers=0,
                quarantine=QuarantinePolicy(),
            )
    assert sorted(path.name for path in listing.parent.iterdir()) == ["train.csv", "val.csv"]


def test_arithmetic() -> None:
    assert size_of(256, 340, 256) == (256, 340)
    assert size_of(1080, 1920, 256) == (256, 456)  # 455.1, even
    assert size_of(640, 272, 256) == (602, 256)
    assert size_of(47, 161, 256) == (48, 160)
    assert size_of(1, 1, 256) == (2, 2)
    ntsc = [i * 1001 / 30000 for i in range(300)]
    assert constant_rate(ntsc, 29.97002997) == Fraction(30000, 1001)
    assert constant_rate([round(time, 3) for time in ntsc], 29.97002997) == Fraction(30000, 1001)
    assert constant_rate([5 + i / 25 for i in range(50)], 25.0) == 25
    assert constant_rate([0, 1 / 30, 2 / 30, 0.12], 30.0) is None
    assert same_times([0.0, 1.0], [0.0, 1.004], 0.01) and not same_times(
        [0.0, 1.0], [0.0, 1.02], 0.01
    )
    assert not same_times([0.0], [0.0, 1.0], 0.01)


def test_every_frame_is_what_frames_gives(corpus: dict[str, Path]) -> None:
    for name in ("h264_open_gop.mp4", "trimmed_28.mp4", "vp8.webm", "rotated_90.mp4", "mpeg2.ts"):
        with PyAVReader(str(corpus[name])) as video:
            assert np.array_equal(
                np.stack(list(video.iter_frames())), video.frames(range(len(video.times)))
            ), name
