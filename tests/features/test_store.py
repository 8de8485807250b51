"""Read features by row, by path, all at once and as a dataset; missing and damaged files."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

import hiera_video as hv
from hiera_video.errors import FeatureError
from hiera_video.features import store as store_module
from hiera_video.features.shard_files import INDEX, ShardFiles, checksum, write_file

NAMES = {"stage3": [4], "stage4": [2, 3]}
METADATA = {"identity": {}, "names": NAMES, "dtype": "fp16", "videos": 5, "shard_videos": 2}


def entry(row: int, clip: int, offset: int | None, **others: Any) -> dict[str, Any]:
    return {
        **dict.fromkeys(INDEX.names),
        "path": f"/v/{row}.mp4",
        "row": row,
        "clip": clip,
        "start_seconds": 2.0 * clip,
        "end_seconds": 2.0 * clip + 2,
        "tail": clip == 2,
        "shard": row // 2,
        "offset": offset,
        "status": "ok",
        **others,
    }


def write_shard(
    files: ShardFiles, number: int, rows: list[dict[str, Any]]
) -> dict[str, torch.Tensor]:
    count = sum(row["status"] == "ok" for row in rows)
    generator = torch.Generator().manual_seed(number)
    features = {
        name: torch.randn(count, *shape, generator=generator).half()
        for name, shape in NAMES.items()
    }
    files.write(number, pa.Table.from_pylist(rows, schema=INDEX), features)
    return features


Written = tuple[Path, list[dict[str, torch.Tensor]]]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Rows 0 (3 windows, one a tail), 1 (unreadable), 2 (1 window), 3 (short); 4 is missing."""
    files = ShardFiles(tmp_path / "out")
    files.create(METADATA)
    gone = {"status": "broken", "reason": "missing", "message": "/v/1.mp4: no such file"}
    first = [entry(0, 0, 0), entry(0, 1, 1), entry(0, 2, 2), entry(1, 0, None, **gone)]
    second = [entry(2, 0, 0), entry(3, 0, None, status="short")]
    features = [write_shard(files, number, rows) for number, rows in enumerate((first, second))]
    return tmp_path / "out", features


def test_a_video_by_row_and_by_path(written: Written) -> None:
    path, features = written
    store = hv.FeatureStore(path)
    assert len(store) == 4 and store.num_videos == 5 and not store.is_complete
    assert store.names == ("stage3", "stage4")
    video = store[0]
    assert torch.equal(video.features, features[0]["stage4"])
    assert video.features.dtype == torch.float16
    assert torch.equal(video.by_name["stage3"], features[0]["stage3"])
    assert video.start_seconds.tolist() == [0, 2, 4] and video.tail.tolist() == [False, False, True]
    assert store["/v/2.mp4"].row == 2
    assert torch.equal(store["/v/2.mp4"].features, features[1]["stage4"])
    assert [item.row for item in store] == [0, 1, 2, 3]


def test_an_unreadable_video_has_a_reason_and_no_features(written: Written) -> None:
    store = hv.FeatureStore(written[0])
    video = store[1]
    assert (video.status, video.reason) == ("broken", "missing")
    assert video.message == "/v/1.mp4: no such file"
    assert video.features.shape == (0, 2, 3) and len(video.start_seconds) == 0
    assert store[3].status == "short" and store[3].reason is None
    assert store.table().num_rows == 6 and store.clips().num_rows == 4


def test_all_windows_at_once_and_as_a_dataset(written: Written) -> None:
    path, features = written
    store = hv.FeatureStore(path)
    assert torch.equal(store.matrix("stage3"), torch.cat([part["stage3"] for part in features]))
    assert store.matrix().shape == (4, 2, 3)
    (batch,) = DataLoader(store.dataset("stage3"), batch_size=8)
    assert torch.equal(batch["features"], store.matrix("stage3"))
    assert batch["row"].tolist() == store.clips().column("row").to_pylist() == [0, 0, 0, 2]
    assert batch["end_seconds"].tolist() == [2, 4, 6, 2]
    copied = pickle.loads(pickle.dumps(store))  # as the workers of a DataLoader get it
    assert torch.equal(copied.matrix(), store.matrix())


def test_missing_videos_and_stages_are_named(written: Written) -> None:
    store = hv.FeatureStore(written[0])
    with pytest.raises(ValueError, match="row 4 is not extracted yet; run the same command again"):
        store[4]
    with pytest.raises(IndexError, match="row 5: the manifest has rows 0 to 4"):
        store[5]
    with pytest.raises(IndexError, match="window 4: the store has 4"):
        store.dataset()[4]
    with pytest.raises(ValueError, match=r"/v/9.mp4 is not in the store; .*, such as /v/"):
        store["/v/9.mp4"]
    with pytest.raises(ValueError, match="has no 'stage2'; choose one of stage3, stage4"):
        store.matrix("stage2")


def test_a_folder_without_readable_metadata_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no features.json in this folder; give the output"):
        hv.FeatureStore(tmp_path)
    (tmp_path / "features.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="has format 99, this version reads 1; extract again"):
        hv.FeatureStore(tmp_path)
    (tmp_path / "features.json").write_text('{"format"')
    with pytest.raises(ValueError, match=r"cannot be read \(.*\); extract into another folder"):
        hv.FeatureStore(tmp_path)


def test_a_path_in_two_rows_is_ambiguous(tmp_path: Path) -> None:
    files = ShardFiles(tmp_path)
    files.create(METADATA)
    write_shard(files, 0, [entry(0, 0, 0), entry(1, 0, 1, path="/v/0.mp4")])
    with pytest.raises(ValueError, match=r"/v/0.mp4 is in rows \[0, 1\]; choose one of these"):
        hv.FeatureStore(tmp_path)["/v/0.mp4"]


def test_a_relative_path_finds_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ShardFiles(tmp_path)
    files.create(METADATA)
    write_shard(files, 0, [entry(0, 0, 0, path=str(tmp_path / "a.mp4"))])
    monkeypatch.chdir(tmp_path)
    store = hv.FeatureStore(tmp_path)
    assert store["a.mp4"].row == store[Path("a.mp4")].row == 0


def test_damaged_files_are_found(written: Written) -> None:
    path, files = written[0], ShardFiles(written[0])
    assert hv.FeatureStore(path).verify() == []
    target = files.path(1, "safetensors")
    target.write_bytes(target.read_bytes()[:-1] + b"?")
    assert hv.FeatureStore(path).verify() == [str(target)]
    target.write_bytes(b"?")
    remedy = "delete its .json and extract again"
    with pytest.raises(ValueError, match=rf"safetensors: cannot be read .*; {remedy}"):
        hv.FeatureStore(path).matrix()
    files.path(1, "json").write_text("{")
    with pytest.raises(
        ValueError, match=r"json: damaged .*; delete it and extract again to recompute the shard"
    ):
        files.read_summary(1)
    index = files.path(0, "parquet")
    for damage in (lambda: index.write_bytes(index.read_bytes()[:50]), index.unlink):
        damage()
        with pytest.raises(FeatureError, match=rf"00.parquet: cannot be read .*; {remedy}"):
            hv.FeatureStore(path)


def test_leftovers_of_a_shard_are_removed_from_all_array_folders(tmp_path: Path) -> None:
    files = ShardFiles(tmp_path)
    for row in (499, 600, 1500, 2499, 2500):
        path = files.array_path(row, "v.mp4", "npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f".{path.name}.77.partial").touch()
    files.clear_leftovers(0, range(500, 2500))
    assert sorted(path.name for path in tmp_path.rglob("*.partial")) == [
        ".00000499_v.npy.77.partial",
        ".00002500_v.npy.77.partial",
    ]


def test_the_first_process_writes_the_metadata(tmp_path: Path) -> None:
    files = ShardFiles(tmp_path)
    assert files.create(METADATA)["shard_videos"] == 2
    assert files.create({**METADATA, "shard_videos": 9})["shard_videos"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["features.json"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "shards").write_text("in the way")
    with pytest.raises(
        ValueError, match=r"json: cannot be written \(.*\); free disk space or choose another out"
    ):
        write_file(ShardFiles(tmp_path).path(0, "json"), b"")


def test_checksums_are_of_the_bytes() -> None:
    ones, zeros = torch.ones(3), torch.zeros(3)
    assert checksum([ones, zeros]) == checksum([torch.cat([ones, zeros])])
    assert checksum([ones, zeros]) != checksum([zeros, ones])
    assert len(checksum([ones.bfloat16()])) == 16


def test_a_short_shard_is_an_error_that_names_the_file(written: Written) -> None:
    """Issue I, 4.9: `matrix` had fewer rows than `clips`."""
    path = written[0]
    shard = path / "shards" / "00000" / "00000000.safetensors"
    tensors = load_file(shard)
    save_file({name: value[:2].contiguous() for name, value in tensors.items()}, shard)
    with pytest.raises(FeatureError, match=r"00000000\.safetensors: cannot be read \("):
        hv.FeatureStore(path).matrix()
    save_file({name: value.float() for name, value in tensors.items()}, shard)
    with pytest.raises(FeatureError, match=r"in torch\.float32\); delete its \.json and extract"):
        hv.FeatureStore(path).matrix()


def test_a_short_index_is_an_error_that_names_the_file(written: Written) -> None:
    """Issue I, 4.9: an index of no records is an error."""
    path = written[0]
    index = path / "shards" / "00000" / "00000000.parquet"
    table = parquet.read_table(index)
    for rows, words in ((0, "has 0 clips of 0 videos"), (2, "has 2 clips of 1 video")):
        parquet.write_table(table.slice(0, rows), index)
        with pytest.raises(FeatureError, match=rf"0\.parquet: cannot be read \({words}, its .json"):
            hv.FeatureStore(path)
    parquet.write_table(table.drop_columns(["status"]), index)
    with pytest.raises(FeatureError, match=r"0\.parquet: cannot be read \(has other columns\)"):
        hv.FeatureStore(path)


@pytest.mark.parametrize("content", ["[]", "3", "null", "{}", '{"clips": "x"}', "{"])
def test_damaged_json_is_an_error_that_names_the_file(written: Written, content: str) -> None:
    path = written[0]
    (path / "shards" / "00000" / "00000000.json").write_text(content)
    with pytest.raises(FeatureError, match=r"00000000\.json: damaged \("):
        hv.FeatureStore(path)


@pytest.mark.parametrize(
    "change",
    [{"names": 3}, {"names": {}}, {"names": {"stage4": ["x"]}}, {"dtype": "x"}, {"videos": None}],
)
def test_damaged_settings_are_an_error_that_names_the_file(
    written: Written, change: dict[str, Any]
) -> None:
    file = written[0] / "features.json"
    for content in ([], {**json.loads(file.read_text()), **change}):
        file.write_text(json.dumps(content))
        with pytest.raises(FeatureError, match=r"features\.json: damaged \("):
            hv.FeatureStore(written[0])


def test_an_index_that_fills_the_memory_is_refused(
    reference_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue I, 4.8: Parquet stores a repeated text once."""
    path = tmp_path / "store"
    shutil.copytree(reference_store, path)
    index = path / "shards" / "00000" / "00000000.parquet"
    table = parquet.read_table(index)
    place = table.schema.get_field_index("message")
    text = pa.array(["x" * 100_000] * len(table), pa.string())
    parquet.write_table(table.set_column(place, table.schema.field("message"), text), index)
    assert index.stat().st_size < 30_000
    hv.FeatureStore(path).clips()
    monkeypatch.setattr(store_module, "MAX_INDEX_BYTES", 100_000 * len(table) - 1)
    words = r"0\.parquet: cannot be read \(takes \d+ MiB in memory\); delete its .json"
    with pytest.raises(FeatureError, match=words):
        hv.FeatureStore(path).clips()
    monkeypatch.setattr(store_module, "MAX_INDEX_BYTES", 64 * len(table) - 1)
    with pytest.raises(FeatureError, match=words):
        hv.FeatureStore(path).clips()
