"""Sharded checkpoints: which rank writes what, damage to any shard, and a full disk on one rank."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hiera_video.config.load import load_config, save_config
from hiera_video.errors import CheckpointError
from hiera_video.models.factory import create_model
from hiera_video.models.weights.load import read_weights
from hiera_video.runtime.distributed import World
from hiera_video.train import checkpoint as module
from hiera_video.train.checkpoint import CheckpointStore, read_checkpoint
from hiera_video.train.checkpoint_shards import (
    assign_shards,
    file_names,
    iterate_tensors,
    merge_shards,
    take_shard,
)
from hiera_video.workflows.load_run import load

WEIGHTS = {"large": torch.arange(12.0), "small": torch.ones(2), "middle": torch.full((5,), 2.0)}
STATE = {
    "optimizer": {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(12)}},
        "param_groups": [{"lr": 0.1}],
    },
    "scaler": {},
}


class Exchange:
    """Exchange of values between threads that act as ranks."""

    def __init__(self, size: int) -> None:
        self.barrier, self.values = threading.Barrier(size, timeout=120), [None] * size

    def gather(self, rank: int, value: Any) -> list[Any]:
        self.values[rank] = value
        self.barrier.wait()
        found = list(self.values)
        self.barrier.wait()
        return found


@dataclass(frozen=True)
class ThreadRank(World):
    exchange: Exchange = field(default_factory=lambda: Exchange(1))

    def all_gather(self, value: Any) -> list[Any]:
        return self.exchange.gather(self.rank, value)


def on_ranks(size: int, work: Callable[[World], Any]) -> list[Any]:
    """Run `work` on each of `size` ranks and return its results, or the errors raised."""
    exchange, answers = Exchange(size), [None] * size

    def run(rank: int) -> None:
        try:
            answers[rank] = work(ThreadRank(rank, size, torch.device("cpu"), exchange))
        except CheckpointError as error:
            answers[rank] = error  # type: ignore[call-overload]

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def save(folder: Path, step: int, *, size: int = 2, sharded: bool = True) -> list[Any]:
    def work(world: World) -> Path:
        store = CheckpointStore(folder, keep=2, world=world, sharded=sharded)
        return store.save(step, WEIGHTS, STATE, {"class_names": ["a"]}, best=True)

    return on_ranks(size, work)


def test_tensors_are_divided_evenly_and_merge_to_the_same_tree() -> None:
    assert assign_shards([1, 5, 2, 3], 2) == [0, 0, 1, 1] and assign_shards([4, 4], 1) == [0, 0]
    assert file_names(0, 1) == ("model.safetensors", "state.pt")
    assert file_names(1, 12) == ("model-00002-of-00012.safetensors", "state-00002-of-00012.pt")
    shards = [take_shard(STATE, shard, 2) for shard in range(2)]
    sizes = [sum(value.numel() for value in iterate_tensors(shard)) for shard in shards]
    assert sizes == [12, 1] and "param_groups" not in shards[1]["optimizer"]
    assert take_shard(STATE, None, 2)["optimizer"] == {"state": {0: {}}}
    moments = merge_shards(shards)["optimizer"]["state"][0]
    assert moments["step"] == 3 and torch.equal(moments["exp_avg"], torch.zeros(12))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_one_process_reads_what_any_number_of_ranks_wrote(tmp_path: Path, size: int) -> None:
    paths = save(tmp_path / "checkpoints", 4, size=size)
    assert len(set(paths)) == 1 and len(list(paths[0].glob("*.safetensors"))) == size
    found = CheckpointStore(tmp_path / "checkpoints", keep=2).latest()
    assert (
        found is not None
        and found.meta["step"] == 4
        and (tmp_path / "checkpoints" / "best").resolve() == paths[0]
    )
    for loaded in (found.weights, dict(read_weights(tmp_path).state)):
        assert loaded.keys() == WEIGHTS.keys()
        assert all(torch.equal(value, WEIGHTS[name]) for name, value in loaded.items())
    assert found.state["optimizer"]["param_groups"] == [{"lr": 0.1}] and found.state["scaler"] == {}
    state: dict[str, Tensor] = found.state["optimizer"]["state"][0]
    assert state["step"] == 3 and torch.equal(state["exp_avg"], torch.zeros(12))
    assert read_weights(tmp_path).class_names == ("a",)


def test_only_the_first_rank_writes_full_checkpoints(tmp_path: Path) -> None:
    (path, _) = save(tmp_path, 4, sharded=False)
    assert sorted(file.name for file in path.iterdir()) == [
        "meta.json",
        "model.safetensors",
        "state.pt",
    ]


@pytest.mark.parametrize(
    "file",
    ["model-00001-of-00002.safetensors", "state-00002-of-00002.pt", "model.safetensors.index.json"],
)
@pytest.mark.parametrize("damage", ["flip", "remove", "exchange"])
def test_damage_to_any_shard_falls_back(
    tmp_path: Path, file: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2)[0] / file
    if damage == "flip":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "remove":
        path.unlink()
    else:
        path.write_bytes((path.parent / "meta.json").read_bytes())
    with caplog.at_level(logging.WARNING):
        found = CheckpointStore(tmp_path, keep=2).latest()
    assert (
        found is not None
        and found.meta["step"] == 1
        and "falling back to the previous checkpoint" in caplog.text
    )


def test_an_index_with_missing_or_outside_files_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, 2)[0]
    (folder / "model-00002-of-00002.safetensors").unlink()
    words = r"index\.json: lists model-00002-of-00002\.safetensors, missing from the folder"
    with pytest.raises(CheckpointError, match=words):
        read_weights(folder)
    outside = '{"weight_map": {"a": "../../secret.safetensors"}}'
    (folder / "model.safetensors.index.json").write_text(outside)
    with pytest.raises(CheckpointError, match=r"lists \.\./\.\./secret\.safetensors, missing"):
        read_weights(folder)


@pytest.mark.parametrize("bad_rank", [0, 1])
def test_a_full_disk_on_one_rank_stops_all_ranks(
    tmp_path: Path, bad_rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    before, name, write = sorted(tmp_path.iterdir()), file_names(bad_rank, 2)[1], torch.save

    def full(value: object, path: Path) -> None:
        if path.name == name:
            raise OSError(28, "No space left on device")
        write(value, path)

    monkeypatch.setattr(module.torch, "save", full)
    answers = save(tmp_path, 2)
    assert all(
        isinstance(answer, CheckpointError) and "No space left" in str(answer) for answer in answers
    )
    assert all("existing checkpoints are intact" in str(answer) for answer in answers)
    assert (
        sorted(tmp_path.iterdir()) == before
        and read_checkpoint(tmp_path / "last").meta["step"] == 1
    )


def test_a_run_with_sharded_checkpoints_loads_as_a_model(tmp_path: Path) -> None:
    config = load_config(
        "configs/motion_hiera_micro.yaml", ["model.num_classes=2", f"out_dir={tmp_path}"]
    )
    save_config(config, tmp_path / "config.yaml")
    torch.manual_seed(0)
    model = create_model(config.model.name, num_classes=2, input_size=config.input_size).eval()
    meta = {"model": {"num_classes": 2}, "class_names": ["left", "right"]}

    def work(world: World) -> Path:
        store = CheckpointStore(tmp_path / "checkpoints", keep=1, world=world, sharded=True)
        return store.save(1, model.state_dict(), STATE, meta, best=True)

    on_ranks(2, work)
    clips, run = torch.randn(1, 3, *config.input_size), load(tmp_path)
    assert torch.equal(run.model(clips), model(clips)) and run.class_names == ("left", "right")
