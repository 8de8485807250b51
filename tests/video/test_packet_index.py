"""Packet index: the same frames as without it, and changed files are scanned again."""

from __future__ import annotations

import random
import sqlite3
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import READABLE

from hiera_video.data.config import DataConfig
from hiera_video.data.dataset import TestViews
from hiera_video.data.loading.loader import test_loader
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.prepare.tar_writer import write_shards
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.errors import ConfigError
from hiera_video.video import open_video
from hiera_video.video.options import IndexedPyAV, ShardVideo
from hiera_video.video.packet_index import PacketTable, Stamp, find_packets, write_index
from hiera_video.video.packets import PacketSource
from hiera_video.video.pyav import PyAVReader


def row_of(source: str | ShardVideo) -> tuple[Stamp, bytes] | None:
    with PyAVReader(source) as video:
        return video.packet_index_row()


def index_of(path: Path, records: Iterable[Record]) -> tuple[IndexedPyAV, int]:
    """Write an index of the records; return it and the number of videos in it."""
    rows = [(record.path, row_of(record.source)) for record in records]
    count = write_index(path, [(name, *row) for name, row in rows if row is not None])
    return IndexedPyAV(index=str(path)), count


def manifest_of(*paths: Path) -> Manifest:
    records = tuple(Record(path=str(path), label=None, row=row) for row, path in enumerate(paths))
    return Manifest(records=records, class_names=None, multi_label=False, source="list")


def test_frames_are_the_same_without_a_scan(
    corpus: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = manifest_of(*(corpus[name] for name in READABLE))
    in_shards = read_manifest(str(write_shards(manifest, tmp_path / "tars", "all")))
    index, count = index_of(tmp_path / "index", manifest.records)
    shard_index, shard_count = index_of(tmp_path / "shard_index", in_shards.records)
    assert count == shard_count > 20
    scan, scans = PacketSource._scan, []
    monkeypatch.setattr(
        PacketSource, "_scan", lambda self, kept: scans.append(self._path) or scan(self, kept)
    )
    not_scanned = set()
    for record, in_shard in zip(manifest.records, in_shards.records):
        name = Path(record.path).name
        with PyAVReader(record.path) as video:
            times, fps, info = video.times, video.fps, video.info
            generator = random.Random(name)
            requests = [generator.choices(range(len(times)), k=k) for k in (1, 3, 16)]
            requests.append(list(range(len(times))))
            expected = [video.frames(indices) for indices in requests]
        scans.clear()
        with (
            open_video(record.path, index) as from_file,
            open_video(in_shard.source, shard_index) as from_shard,
        ):
            if not scans:
                not_scanned.add(name)
            for reader in (from_file, from_shard):
                assert (reader.times, reader.fps, reader.info) == (times, fps, info), name
                for indices, frames in zip(requests, expected):
                    assert np.array_equal(reader.frames(indices), frames), name
    assert len(not_scanned) == count
    assert not_scanned >= {
        "h264_bframes.mp4", "h264_open_gop.mp4", "trimmed_28.mp4", "vp9.webm", "hidden_vp8.webm",
    }  # fmt: skip
    assert not not_scanned & {"h264.ts", "gif.gif", "mpeg4.avi"}


def test_each_worker_opens_its_own_connection(videos: Any, tmp_path: Path) -> None:
    manifest = manifest_of(*(videos.write(f"{number}.mp4", 30 + number) for number in range(4)))
    index, _ = index_of(tmp_path / "index", manifest.records)
    with open_video(manifest.records[0].path, index):
        pass  # opens the index in this process, before it forks

    def views(decoder: Any, workers: int) -> list[Any]:
        clip = ClipConfig(num_frames=2, frame_stride=2)
        transform = EvalTransform(32, 1, (0.45,) * 3, (0.225,) * 3)
        dataset = TestViews(manifest, clip, transform, num_clips=2, decoder=decoder)
        found: list[Any] = list(test_loader(dataset, workers=workers, rows=range(4)))
        return [(view.clip_seconds, view.views.numpy().tobytes()) for view in found]

    assert views(index, 2) == views(index, 0) == views("pyav", 0)


def test_an_outdated_entry_is_ignored(videos: Any, tmp_path: Path) -> None:
    path = videos.write("a.mp4", 30)
    index, count = index_of(tmp_path / "index", manifest_of(path).records)
    assert count == 1
    size, date = path.stat().st_size, path.stat().st_mtime_ns
    assert find_packets(index.index, str(path), (size, date)) is not None
    for stamp in ((size + 1, date), (size, date + 1), None):
        assert find_packets(index.index, str(path), stamp) is None
    assert find_packets(index.index, str(path) + "x", (size, date)) is None
    videos.write("a.mp4", 45)
    with open_video(path, index) as video:
        assert video.info.num_frames == 45 and videos.numbers(video.frames([44, 3])) == [44, 3]


def test_a_wrong_entry_costs_time_but_no_frame(videos: Any, tmp_path: Path) -> None:
    """Another version of FFmpeg could report other times for the same packets."""
    path = videos.write("a.mp4", 40, gop=10)
    row = row_of(str(path))
    assert row is not None
    stamp, content = row
    right = PacketTable.from_bytes(content)
    wrong = PacketTable(pts=right.pts, dts=right.dts + 7, kinds=right.kinds)
    write_index(tmp_path / "x", [(str(path), stamp, wrong.to_bytes())])
    with PyAVReader(str(path), index=str(tmp_path / "x")) as video:
        assert videos.numbers(video.frames([35, 2])) == [35, 2]


def test_entries_are_lossless_and_small(videos: Any) -> None:
    path = videos.write("a.mp4", 200, gop=24, bframes=3)
    with PyAVReader(str(path)) as video:
        row, index = video.packet_index_row(), video._index
    assert row is not None and index is not None
    assert PacketTable.from_bytes(row[1]).frame_index() == index
    assert len(row[1]) < 400


@pytest.mark.parametrize("content", [b"not a database" * 100, b""])
def test_a_file_that_is_not_an_index(content: bytes, videos: Any, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    words = r"data.index=.*x: damaged, or not a packet index .*again with hiera-video check-data"
    with pytest.raises(ConfigError, match=words) as raised:
        open_video(videos.write("a.mp4", 5), IndexedPyAV(index=str(tmp_path / "x")))
    assert str(raised.value).count("not a packet index") == 1


def test_a_missing_index(videos: Any) -> None:
    words = "data.index=gone: no such file; hiera-video check-data --index writes it"
    with pytest.raises(ConfigError, match=words):
        open_video(videos.write("a.mp4", 5), IndexedPyAV(index="gone"))


@pytest.mark.parametrize("content", [b"damaged", b""])
def test_a_damaged_entry(content: bytes, videos: Any, tmp_path: Path) -> None:
    path = videos.write("a.mp4", 5)
    index, _ = index_of(tmp_path / "index", manifest_of(path).records)
    with sqlite3.connect(index.index) as connection:
        connection.execute("UPDATE videos SET packets = ?", (content,))
    connection.close()
    with pytest.raises(ConfigError, match="damaged, or not a packet index"):
        open_video(path, index)


def test_an_index_needs_the_pyav_decoder() -> None:
    words = "data.index=x needs data.decoder=pyav, not decord; change one of them"
    with pytest.raises(ConfigError, match=words):
        DataConfig(index="x", decoder="decord")
    assert DataConfig(index="x").backend == IndexedPyAV(index="x")


def test_a_row_that_expands_is_damaged() -> None:
    """Issue I, 4.8."""
    bomb = zlib.compress(bytes(17 * ((1 << 22) + 1)), 9)
    with pytest.raises(ValueError, match="bytes are not a packet table"):
        PacketTable.from_bytes(bomb)
