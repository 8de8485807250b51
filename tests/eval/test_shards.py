"""Shards of a test: read back only if nothing changed, and merged without a gap."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hiera_video.data.dataset import UnreadableVideo
from hiera_video.data.manifest.record import Record
from hiera_video.errors import ConfigError
from hiera_video.eval.shards import (
    EvalShard,
    EvalShardStore,
    lock_results,
    merge,
    record_states,
)


def shard(*rows: int, unreadable: tuple[int, ...] = (), views: int = 2) -> EvalShard:
    logits = np.array([[[row, view, 0] for view in range(views)] for row in rows], np.float32)
    return EvalShard(
        rows=np.array(rows, dtype=np.int64),
        logits=logits.reshape(-1, views, 3),
        seconds=np.array(rows, dtype=np.float64),
        unreadable=tuple(
            UnreadableVideo(row=row, path="x", reason="empty", message="x: empty")
            for row in unreadable
        ),
    )


def test_shards_are_merged_in_manifest_order() -> None:
    shards = [shard(3, 4), shard(0, 2, unreadable=(1,)), shard(unreadable=(5,))]
    found = merge(shards, of=6)
    assert found.rows.tolist() == [0, 2, 3, 4] and found.logits[:, 0, 0].tolist() == [0, 2, 3, 4]
    assert [video.row for video in found.unreadable] == [1, 5]
    assert found.seconds is not None and found.seconds.tolist() == [0, 2, 3, 4]


def test_background_changes_with_the_segments_that_it_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    record = Record(path=str(tmp_path / "a.mp4"), label=1, row=0)
    first, second = (replace(record, excluded_seconds=((0, end),)) for end in (1, 2))
    states = [record_states([one]) for one in (record, first, second)]
    assert states[0] != states[1] != states[2] and states[1][0][-1] == "None None None ((0, 1),)"


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ([shard(0, 1)], r"of 3 videos, rows \[2\] are missing and rows \[\] are counted twice"),
        ([shard(0, 1), shard(1, 2)], r"rows \[\] are missing and rows \[1\] are counted twice"),
        ([shard(0, 1), shard(2, unreadable=(1,))], r"rows \[1\] are counted twice"),
        ([shard(0, 1, 2), shard(3)], r"rows \[\] are missing and rows \[\] are counted twice"),
        ([shard(0, 1), shard(2, views=3)], "differ in their number of views"),
    ],
)
def test_merge_refuses_missing_and_repeated_videos_and_views(
    shards: list[EvalShard], message: str
) -> None:
    with pytest.raises(RuntimeError, match=message):
        merge(shards, of=3)


def test_a_shard_is_read_only_if_nothing_changed(tmp_path: Path) -> None:
    records = []
    for row in range(2):
        (tmp_path / f"{row}.mp4").write_bytes(b"1234")
        records.append(Record(path=str(tmp_path / f"{row}.mp4"), label=0, row=row))
    store = EvalShardStore(tmp_path / "partial", {"weights": "x"}, records)
    assert store.read(range(2)) is None
    store.write(range(2), shard(0, 1))
    found = store.read(range(2))
    assert found is not None and found.rows.tolist() == [0, 1] and found.unreadable == ()
    assert np.array_equal(found.logits, shard(0, 1).logits)
    assert EvalShardStore(tmp_path / "partial", {"weights": "y"}, records).read(range(2)) is None
    fewer = [records[0], replace(records[1], num_frames=7)]
    assert EvalShardStore(tmp_path / "partial", {"weights": "x"}, fewer).read(range(2)) is None
    (tmp_path / "1.mp4").write_bytes(b"mended")
    assert store.read(range(2)) is None
    store.clear()
    assert not (tmp_path / "partial").exists()


def test_a_second_test_of_one_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "x"
    words = rf"{folder}: another test is writing its results there; wait for its end"
    with lock_results(folder), pytest.raises(ConfigError, match=words), lock_results(folder):
        pass
    assert not folder.exists()  # no results
    folder.mkdir()
    (folder / ".test.lock").touch()  # of a test that was killed
    with lock_results(folder):
        pass
    assert list(folder.iterdir()) == []
    (tmp_path / "file").touch()
    words = r"file/x: cannot be written \(Not a directory\); choose another out_dir"
    with pytest.raises(ConfigError, match=words), lock_results(tmp_path / "file/x"):
        pass


def test_shards_of_another_test_are_kept(tmp_path: Path) -> None:
    (tmp_path / "0.mp4").write_bytes(b"1234")
    records = [Record(path=str(tmp_path / "0.mp4"), label=0, row=0)]
    ours, theirs = (EvalShardStore(tmp_path / "partial", {"w": w}, records) for w in "xy")
    for store in (ours, theirs):
        store.write(range(1), shard(0))
    ours.clear()
    assert theirs.read(range(1)) is not None
    ours.clear()
    theirs.clear()
    assert not (tmp_path / "partial").exists()


def test_a_damaged_shard_is_computed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = [Record(path="a.mp4", label=0, row=0)]
    store = EvalShardStore(tmp_path, {}, records)
    store.write(range(1), shard(0))
    (path,) = tmp_path.rglob("*.npz")
    path.write_bytes(path.read_bytes()[:50])
    assert store.read(range(1)) is None
    assert "damaged" in caplog.text and "the shard is computed again" in caplog.text


def test_a_shard_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """It has no array of boxes outside the crops."""
    (tmp_path / "0.mp4").write_bytes(b"1234")
    records = [Record(path=str(tmp_path / "0.mp4"), label=0, row=0)]
    store = EvalShardStore(tmp_path / "partial", {"weights": "x"}, records)
    store.write(range(1), shard(0))
    (file,) = (tmp_path / "partial").rglob("*.npz")
    with np.load(file) as arrays:
        kept = {name: arrays[name] for name in arrays if name != "outside"}
    np.savez(file, **kept)
    found = store.read(range(1))
    assert found is not None and found.rows.tolist() == [0] and found.outside.shape == (0,)


def test_a_shard_with_an_unreadable_video_is_not_kept(tmp_path: Path) -> None:
    records = [Record(path=str(tmp_path / f"{row}.mp4"), label=0, row=row) for row in range(2)]
    store = EvalShardStore(tmp_path / "partial", {"weights": "x"}, records)
    store.write(range(2), shard(0, unreadable=(1,)))
    assert store.read(range(2)) is None and not (tmp_path / "partial").exists()
