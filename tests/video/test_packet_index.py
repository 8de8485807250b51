"""With an index of packets, frames are those without; a file that has changed is read anew."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import BY_NAME, READABLE

from hiera_video.data.config import DataConfig
from hiera_video.data.dataset import TestViews
from hiera_video.data.loading.loader import test_loader
from hiera_video.data.loading.quarantine import QuarantinePolicy
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.prepare.check import write_packet_index
from hiera_video.data.prepare.scan import scan
from hiera_video.data.prepare.tar_writer import write_shards
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.errors import ConfigError
from hiera_video.video import open_video
from hiera_video.video.options import IndexedPyAV
from hiera_video.video.packet_index import PacketTable, find_packets, write_index
from hiera_video.video.packets import PacketSource
from hiera_video.video.pyav import PyAVReader


def scanned(manifest: Manifest, folder: Path, workers: int = 0) -> tuple[str, int]:
    found = list(
        scan(
            manifest,
            decoder="pyav",
            workers=workers,
            quarantine=QuarantinePolicy(),
            quick=True,
            index_packets=True,
        )
    )
    path, count = write_packet_index(folder, {"train": found})
    return str(path), count


def listed(*paths: Path) -> Manifest:
    records = tuple(Record(path=str(path), label=None, row=row) for row, path in enumerate(paths))
    return Manifest(records=records, class_names=None, multi_label=False, source="list")


def test_frames_are_the_same_and_nothing_is_scanned(
    corpus: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = listed(*(corpus[name] for name in READABLE))
    index, count = scanned(manifest, tmp_path, workers=2)
    stored = read_manifest(str(write_shards(manifest, tmp_path / "tars", "all")))
    in_shards, count_in_shards = scanned(stored, tmp_path / "tars")
    assert count == count_in_shards > 20
    scan, scans = PacketSource._scan, []
    monkeypatch.setattr(
        PacketSource, "_scan", lambda self, kept: scans.append(self._path) or scan(self, kept)
    )
    helped = set()
    for record, in_shard in zip(manifest.records, stored.records):
        name = Path(record.path).name
        with PyAVReader(record.path) as video:
            times, fps, info = video.times, video.fps, video.info
            generator = random.Random(name)
            asked = [generator.choices(range(len(times)), k=k) for k in (1, 3, 16)] + [
                list(range(len(times)))
            ]
            expected = [video.frames(indices) for indices in asked]
        del scans[:]
        with (
            open_video(record.path, IndexedPyAV(index=index)) as video,
            PyAVReader(in_shard.source, index=in_shards) as other,
        ):
            if not scans:
                helped.add(name)
            for reader in (video, other):
                assert (reader.times, reader.fps, reader.info) == (times, fps, info), name
                assert all(
                    np.array_equal(reader.frames(indices), frames)
                    for indices, frames in zip(asked, expected)
                ), name
    assert (
        len(helped) == count
        and {"h264_bframes.mp4", "h264_open_gop.mp4", "trimmed_28.mp4", "vp9.webm"} <= helped
    )
    assert not helped & {"h264.ts", "vp8.webm", "mpeg4.avi"} and all(
        BY_NAME[name] for name in helped
    )


def test_workers_have_connections_of_their_own(videos: Any, tmp_path: Path) -> None:
    manifest = listed(*(videos.write(f"{number}.mp4", 30 + number) for number in range(4)))
    index, _ = scanned(manifest, tmp_path)
    with open_video(manifest.records[0].path, IndexedPyAV(index=index)):
        pass  # this process has opened the index before it forks

    def views(decoder: Any, workers: int) -> list[Any]:
        clip = ClipConfig(num_frames=2, frame_stride=2)
        transform = EvalTransform(32, 1, (0.45,) * 3, (0.225,) * 3)
        dataset = TestViews(manifest, clip, transform, num_clips=2, decoder=decoder)
        found: list[Any] = list(test_loader(dataset, workers=workers, rows=range(4)))
        return [(view.clip_seconds, view.views.numpy().tobytes()) for view in found]

    assert (
        views(IndexedPyAV(index=index), 2) == views(IndexedPyAV(index=index), 0) == views("pyav", 0)
    )


def test_a_stale_entry_is_ignored(videos: Any, tmp_path: Path) -> None:
    path = videos.write("a.mp4", 30)
    index, count = scanned(listed(path), tmp_path)
    assert count == 1
    size, date = path.stat().st_size, path.stat().st_mtime_ns
    assert find_packets(index, str(path), (size, date)) is not None
    for stamp in ((size + 1, date), (size, date + 1), None):
        assert find_packets(index, str(path), stamp) is None
    assert find_packets(index, str(path) + "x", (size, date)) is None
    videos.write("a.mp4", 45)
    with open_video(path, IndexedPyAV(index=index)) as video:
        assert video.info.num_frames == 45 and videos.numbers(video.frames([44, 3])) == [44, 3]


def test_an_entry_that_lies_costs_time_and_no_frame(videos: Any, tmp_path: Path) -> None:
    """Another version of the container's reader could give packets other times."""
    path = videos.write("a.mp4", 40, gop=10)
    with PyAVReader(str(path)) as video:
        remembered = video.packet_index_row()
    assert remembered is not None
    stamp, content = remembered
    true = PacketTable.from_bytes(content)
    false = PacketTable(pts=true.pts, dts=true.dts + 7, kinds=true.kinds)
    write_index(tmp_path / "x", [(str(path), stamp, false.to_bytes())])
    with PyAVReader(str(path), index=str(tmp_path / "x")) as video:
        assert videos.numbers(video.frames([35, 2])) == [35, 2]


def test_what_packets_say_survives_and_takes_little_place(videos: Any, tmp_path: Path) -> None:
    path = videos.write("a.mp4", 200, gop=24, bframes=3)
    with PyAVReader(str(path)) as video:
        remembered, index = video.packet_index_row(), video._index
    assert remembered is not None and index is not None
    assert PacketTable.from_bytes(remembered[1]).frame_index() == index
    assert len(remembered[1]) < 400


def test_mistakes(videos: Any, tmp_path: Path) -> None:
    path = videos.write("a.mp4", 5)
    for name, content in (("text", b"not a database" * 100), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            ConfigError,
            match=rf"data.index=.*{name}: damaged, or not a packet index .*write it again with tools/check",
        ):
            open_video(path, IndexedPyAV(index=str(tmp_path / name)))
    with pytest.raises(
        ConfigError, match=r"data.index=gone: no such file; tools/check_data.py --index writes it"
    ):
        open_video(path, IndexedPyAV(index="gone"))
    index, _ = scanned(listed(path), tmp_path)
    for content in (b"damaged", b""):
        with sqlite3.connect(index) as connection:
            connection.execute("UPDATE videos SET packets = ?", (content,))
        connection.close()
        with pytest.raises(ConfigError, match=r"damaged, or not a packet index"):
            open_video(path, IndexedPyAV(index=index))
    with pytest.raises(
        ConfigError,
        match=r"data.index=x needs data.decoder=pyav, not decord; change one of them",
    ):
        DataConfig(index="x", decoder="decord")
    assert DataConfig(index="x").backend == IndexedPyAV(index="x")
