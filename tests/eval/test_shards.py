"""Shards: cut, kept, read back only where nothing changed, and put together without a video missing or twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hiera_video.data.dataset import UnreadableVideo
from hiera_video.data.manifest.record import Record
from hiera_video.eval.shards import EvalShard, EvalShardStore, merge, shard_ranges


def shard(*rows: int, broken: tuple[int, ...] = (), views: int = 2) -> EvalShard:
    return EvalShard(
        rows=np.array(rows, dtype=np.int64),
        logits=np.array(
            [[[row, view, 0] for view in range(views)] for row in rows], np.float32
        ).reshape(-1, views, 3),
        seconds=np.array(rows, dtype=np.float64),
        broken=tuple(
            UnreadableVideo(row=row, path="x", reason="empty", message="x: empty") for row in broken
        ),
    )


def test_stretches() -> None:
    assert shard_ranges(5, 2) == [range(0, 2), range(2, 4), range(4, 5)]
    assert shard_ranges(0, 2) == []


def test_merged_in_the_manifests_order() -> None:
    found = merge([shard(3, 4), shard(0, 2, broken=(1,)), shard(broken=(5,))], of=6)
    assert found.rows.tolist() == [0, 2, 3, 4] and found.logits[:, 0, 0].tolist() == [0, 2, 3, 4]
    assert [item.row for item in found.broken] == [1, 5]
    assert found.seconds is not None and found.seconds.tolist() == [0, 2, 3, 4]


@pytest.mark.parametrize(
    ("shards", "words"),
    [
        ([shard(0, 1)], r"of 3 videos, rows \[2\] are missing and rows \[\] are counted twice"),
        ([shard(0, 1), shard(1, 2)], r"rows \[\] are missing and rows \[1\] are counted twice"),
        ([shard(0, 1), shard(2, broken=(1,))], r"rows \[1\] are counted twice"),
        ([shard(0, 1), shard(2, views=3)], "differ in their number of views"),
    ],
)
def test_a_video_or_view_missing_or_counted_twice_is_an_error(
    shards: list[EvalShard], words: str
) -> None:
    with pytest.raises(RuntimeError, match=words):
        merge(shards, of=3)


def test_a_shard_is_read_only_where_nothing_changed(tmp_path: Path) -> None:
    records = []
    for row in range(2):
        (tmp_path / f"{row}.mp4").write_bytes(b"1234")
        records.append(Record(path=str(tmp_path / f"{row}.mp4"), label=0, row=row))
    store = EvalShardStore(tmp_path / "partial", {"weights": "x"}, records)
    assert store.read(range(2)) is None
    store.write(range(2), shard(0, 1))
    found = store.read(range(2))
    assert found is not None and found.rows.tolist() == [0, 1] and found.broken == ()
    assert np.array_equal(found.logits, shard(0, 1).logits)
    assert EvalShardStore(tmp_path / "partial", {"weights": "y"}, records).read(range(2)) is None
    fewer = [records[0], replace(records[1], num_frames=7)]
    assert EvalShardStore(tmp_path / "partial", {"weights": "x"}, fewer).read(range(2)) is None
    (tmp_path / "1.mp4").write_bytes(b"mended")
    assert store.read(range(2)) is None
    store.clear()
    assert not (tmp_path / "partial").exists()


def test_a_shard_with_a_broken_video_is_not_kept(tmp_path: Path) -> None:
    records = [Record(path=str(tmp_path / f"{row}.mp4"), label=0, row=row) for row in range(2)]
    store = EvalShardStore(tmp_path / "partial", {"weights": "x"}, records)
    store.write(range(2), shard(0, broken=(1,)))
    assert store.read(range(2)) is None and not (tmp_path / "partial").exists()
