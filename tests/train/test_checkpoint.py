"""Checkpoints: what is written reads back, and damage is found, named and survived."""

from __future__ import annotations

import logging
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hiera_video.errors import CheckpointError
from hiera_video.train.checkpoint import CheckpointStore, read_checkpoint


def save(store: CheckpointStore, step: int, *, best: bool = False) -> Path:
    weights = {"w": torch.full((1000,), float(step))}
    return store.save(step, weights, {"optimizer": {"lr": 0.1}}, {"progress": {"step": step}}, best=best)


def test_round_trip_and_links(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    save(store, 1, best=True)
    save(store, 2)
    found = store.latest()
    assert found is not None and found.meta["step"] == 2 and found.meta["best"] is False
    assert torch.equal(found.weights["w"], torch.full((1000,), 2.0)) and found.state == {"optimizer": {"lr": 0.1}}
    assert (tmp_path / "last").resolve().name == "step_00000002"
    assert (tmp_path / "best").resolve().name == "step_00000001"


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for step in range(1, 7):
        save(store, step, best=step == 2)
    assert sorted(path.name for path in tmp_path.glob("step_*")) == ["step_00000002", "step_00000005", "step_00000006"]


@pytest.mark.parametrize("file", ["model.safetensors", "state.pt", "meta.json"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "remove"])
def test_damage_falls_back_to_the_one_before_and_says_so(
    tmp_path: Path, file: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    save(store, 1)
    path = save(store, 2) / file
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[2] ^= 0xFF  # inside meta.json's first key, too
        path.write_bytes(content)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    with caplog.at_level(logging.WARNING):
        found = store.latest()
    assert found is not None and found.meta["step"] == 1
    assert "step_00000002" in caplog.text and "falling back to the one before" in caplog.text


def test_a_pickle_bomb_never_runs(tmp_path: Path) -> None:
    folder = save(CheckpointStore(tmp_path / "run", keep=2), 1)

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "exploded",)

    import hashlib
    import json

    (folder / "state.pt").write_bytes(pickle.dumps(Bomb()))
    meta = json.loads((folder / "meta.json").read_text())
    meta["files"]["state.pt"]["sha256"] = hashlib.sha256((folder / "state.pt").read_bytes()).hexdigest()
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(CheckpointError, match="incomplete or damaged"):
        read_checkpoint(folder)
    assert not (tmp_path / "exploded").exists()


def test_a_full_disk_leaves_the_previous_checkpoint_and_no_litter(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    save(store, 1)
    before = sorted(tmp_path.iterdir())
    code = f"""
import resource, signal, torch
from pathlib import Path
from hiera_video.errors import CheckpointError
from hiera_video.train.checkpoint import CheckpointStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    CheckpointStore(Path({str(tmp_path)!r}), keep=2).save(2, {{"w": torch.zeros(100_000)}}, {{}}, {{}}, best=True)
except CheckpointError as error:
    print(error)
"""
    assert resource.RLIMIT_FSIZE  # the limit stands in for a full disk: write() fails in the middle of a file
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "cannot be written" in said and "the checkpoints before it are untouched" in said
    assert sorted(tmp_path.iterdir()) == before
    found = store.latest()
    assert found is not None and found.meta["step"] == 1


def test_a_kill_between_rename_and_link_is_made_good(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    save(store, 1, best=True)
    save(store, 2, best=True)
    (tmp_path / "best").unlink()
    (tmp_path / "best").symlink_to("step_00000001")
    store.latest()
    assert (tmp_path / "best").resolve().name == "step_00000002"
