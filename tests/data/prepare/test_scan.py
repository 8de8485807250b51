"""Scanning: what is decoded of a video, and the result for readable and unreadable ones."""

from __future__ import annotations

import hashlib
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hiera_video.data.loading.quarantine import QuarantinePolicy
from hiera_video.data.loading.storage import StorageGuard
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.prepare import scan as module
from hiera_video.data.prepare.clean_list import plan_clean_lists
from hiera_video.data.prepare.scan import ScannedVideo
from hiera_video.data.prepare.tar_writer import write_shards
from hiera_video.errors import DecodeError, StorageError
from hiera_video.video.pyav import PyAVReader
from hiera_video.video.reader import Limits


def scan(manifest: Manifest, *, workers: int = 0, quick: bool = False) -> list[ScannedVideo]:
    return list(
        module.scan(
            manifest,
            decoder="pyav",
            workers=workers,
            quarantine=QuarantinePolicy(),
            quick=quick,
        )
    )


def test_results_are_equal_with_and_without_workers(videos: Any, tmp_path: Path) -> None:
    path = videos.write("a.mp4", 130)
    videos.write("b.mp4", 40)
    manifest = read_manifest(str(tmp_path))
    scanned = scan(manifest)
    assert scan(manifest, workers=2) == scanned
    assert scan(manifest, quick=True) == scanned
    assert [video.num_frames for video in scanned] == [130, 40]
    assert scanned[0].digest == hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    assert scanned[0].seconds == pytest.approx(130 / 30)


def test_healthy_files_with_wrong_times_flags_or_counts(corpus: dict[str, Path]) -> None:
    names = ["h264.avi", "derived_times.mp4", "packed.avi", "gaps.avi", "all_sync_mpeg4.mp4"]
    records = [Record(path=str(corpus[name]), label=0, row=row) for row, name in enumerate(names)]
    manifest = Manifest(records=tuple(records), class_names=None, multi_label=False, source="list")
    for quick in (False, True):
        scanned = scan(manifest, quick=quick)
        assert [(video.reason, video.num_frames) for video in scanned] == [(None, 40)] * 5


def test_videos_in_shards(videos: Any, tmp_path: Path) -> None:
    for number in range(4):
        videos.write(f"set/{number}.mp4", 20 + number)
    (tmp_path / "set/1.mp4").write_bytes(b"no video at all")
    files = read_manifest(str(tmp_path / "set"))
    index = write_shards(files, tmp_path / "tars", "train")
    expected = [(video.digest, video.reason, video.num_frames) for video in scan(files)]
    for source in (str(index), f"file://{index}"):
        manifest = read_manifest(source)
        scanned = scan(manifest)
        assert [(video.digest, video.reason, video.num_frames) for video in scanned] == expected
        lists = plan_clean_lists(tmp_path, {"train": manifest}, written_before=())
        clean = lists["train"]
        assert clean.path == tmp_path / "train.index.json"
        clean.write(scanned)
        kept = read_manifest(str(clean.path), root=clean.root)
        clean.path.unlink()
        assert [record.shard_video for record in kept.records] == [
            manifest.records[row].shard_video for row in (0, 2, 3)
        ]


def test_large_frames_are_decoded_a_few_at_a_time(
    videos: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 frames of 3840x2160 exceed the limit of one call; here the limit is small instead."""
    path = videos.write("a.mp4", 64)
    limits = Limits(max_bytes=10 * 64 * 48 * 3)
    with (
        pytest.raises(DecodeError, match="64 frames of 64x48 take"),
        PyAVReader(str(path), limits=limits) as video,
    ):
        video.frames(range(64))
    monkeypatch.setattr(module, "Limits", lambda: limits)
    monkeypatch.setattr(module, "open_video", lambda source, _: PyAVReader(source, limits=limits))
    for quick in (False, True):
        (scanned,) = scan(read_manifest(str(tmp_path)), quick=quick)
        assert (scanned.reason, scanned.num_frames) == (None, 64)


@pytest.mark.parametrize(("name", "codec"), [("a.webm", "libvpx"), ("a.mp4", "libx264")])
def test_a_video_is_decoded_in_one_pass(
    videos: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, codec: str
) -> None:
    videos.write(name, 250, codec=codec, gop=250)
    decoded, decode_all = 0, PyAVReader._decode_all

    def count(self: PyAVReader) -> Any:
        nonlocal decoded
        for frame in decode_all(self):
            decoded += 1
            yield frame

    monkeypatch.setattr(PyAVReader, "_decode_all", count)
    (scanned,) = scan(read_manifest(str(tmp_path)))
    assert (scanned.reason, scanned.num_frames, decoded) == (None, 250, 250)


def test_a_segment_without_frames_is_unreadable(videos: Any, tmp_path: Path) -> None:
    videos.write("a.mp4", 60)
    (tmp_path / "train.csv").write_text("a.mp4 0 0.5 1\na.mp4 0 100 110\n")
    scanned = scan(read_manifest(str(tmp_path / "train.csv")))
    assert [video.reason for video in scanned] == [None, "empty_window"]
    assert "a.mp4: has no frame from 100.0 to 110.0 s; its frames are at 0.00 to 1.97 s" in str(
        scanned[1].message
    )


def test_storage_that_is_away_is_waited_for(
    videos: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue I, 4.6: a check never lists healthy videos as missing."""
    folder, away = tmp_path / "set", tmp_path / "away"
    for number in range(3):
        videos.write(f"set/{number}.mp4", 12)
    manifest = read_manifest(str(folder))
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            away.rename(folder)

    monkeypatch.setattr(module, "StorageGuard", partial(StorageGuard, sleep=sleep))
    results = module.scan(manifest, decoder="pyav", workers=0, quarantine=QuarantinePolicy())
    found = [next(results)]
    folder.rename(away)
    found += results
    assert [(video.reason, video.num_frames) for video in found] == [(None, 12)] * 3
    folder.rename(away)
    with pytest.raises(StorageError, match=r"set: no such folder\); check that the disk with the"):
        scan(manifest)


@pytest.mark.fault
def test_a_file_that_kills_its_worker_is_named(
    videos: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue I, 4.8: as the kernel does at a limit on memory."""
    paths = [str(videos.write(f"set/{number}.mp4", 12)) for number in range(4)]
    opened = module.open_video

    def open_video(path: str, backend: Any) -> Any:
        if path == paths[2]:
            os.kill(os.getpid(), signal.SIGKILL)
        return opened(path, backend)

    monkeypatch.setattr(module, "open_video", open_video)  # forked workers inherit this
    scanned = scan(read_manifest(str(tmp_path / "set")), workers=2)
    assert [video.reason for video in scanned] == [None, None, "crashed", None]
    assert str(scanned[2].message).startswith(f"{paths[2]}: crashed a decoder twice")
