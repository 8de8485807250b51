"""Checkpoints: round trip, links, pruning, and damage that is detected and skipped."""

from __future__ import annotations

import logging
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hiera_video.errors import CheckpointError
from hiera_video.train.checkpoint import CheckpointStore, read_checkpoint, read_meta, write_meta


def save(
    store: CheckpointStore, step: int, *, best: bool = False, milestone: str | None = None
) -> Path:
    weights = {"w": torch.full((1000,), float(step))}
    meta = {"progress": {"step": step}}
    return store.save(
        step, weights, {"optimizer": {"lr": 0.1}}, meta, best=best, milestone=milestone
    )


def test_round_trip_and_links(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    save(store, 1, best=True)
    save(store, 2)
    found = store.latest()
    assert found is not None and found.meta["step"] == 2 and found.meta["best"] is False
    assert torch.equal(found.weights["w"], torch.full((1000,), 2.0))
    assert found.state == {"optimizer": {"lr": 0.1}}
    assert (tmp_path / "last").resolve().name == "step_00000002"
    assert (tmp_path / "best").resolve().name == "step_00000001"


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for step in range(1, 7):
        save(store, step, best=step == 2)
    assert sorted(path.name for path in tmp_path.glob("step_*")) == [
        "step_00000002",
        "step_00000005",
        "step_00000006",
    ]


def test_milestones_are_kept_permanently(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    for step in range(1, 7):
        save(store, step, best=step == 1, milestone=f"pass_{step:05d}" if step % 3 == 0 else None)
    kept = ["step_00000001", "step_00000003", "step_00000006"]
    assert sorted(path.name for path in tmp_path.glob("step_*")) == kept
    (tmp_path / "pass_00006").unlink()  # killed before the link was made
    assert store.latest() is not None
    save(store, 7)
    assert sorted(path.name for path in tmp_path.glob("step_*")) == [*kept, "step_00000007"]
    assert read_checkpoint(tmp_path / "pass_00003").meta["step"] == 3


@pytest.mark.parametrize("file", ["model.safetensors", "state.pt", "meta.json"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "remove"])
def test_damage_falls_back_to_the_previous_checkpoint(
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
    assert (
        "step_00000002" in caplog.text and "falling back to the previous checkpoint" in caplog.text
    )


def test_a_changed_digit_in_meta_is_detected(tmp_path: Path) -> None:
    meta = save(CheckpointStore(tmp_path, keep=2), 12) / "meta.json"
    meta.write_text(meta.read_text().replace('"step": 12', '"step": 13'))
    with pytest.raises(CheckpointError, match=r"meta\.json: damaged \(sha256 mismatch\)"):
        read_checkpoint(meta.parent)


def test_a_damaged_later_checkpoint_does_not_displace_new_ones(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    save(store, 1, best=True)
    (save(store, 5) / "state.pt").write_bytes(b"")
    for step in (3, 4):  # the run resumed from step 1
        save(store, step)
        found = store.latest()
        assert found is not None and found.meta["step"] == step
        assert (tmp_path / "last").resolve() == found.folder
    save(store, 6)
    assert sorted(path.name for path in tmp_path.glob("step_*")) == [
        "step_00000001",
        "step_00000006",
    ]


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_over(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    assert store.latest() is None
    for step in (1, 2):
        (save(store, step) / "state.pt").write_bytes(b"")
    words = r"all 2 checkpoints are damaged .*; restore one, or delete the folder to start over"
    with pytest.raises(CheckpointError, match=words):
        store.latest()


def test_partial_folders_left_by_a_kill_are_deleted_by_the_next_save(tmp_path: Path) -> None:
    (tmp_path / ".step_00000003.partial").mkdir(parents=True)
    save(CheckpointStore(tmp_path, keep=2), 5)
    assert not list(tmp_path.glob(".*"))


def test_a_run_whose_folder_is_deleted_ends_with_one_line(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    store = CheckpointStore(run / "checkpoints", keep=2)
    save(store, 1)
    shutil.rmtree(run)
    words = rf"^{run}: was deleted meanwhile; run the same command again to start over$"
    with pytest.raises(CheckpointError, match=words):
        save(store, 2)
    assert not run.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"step": 1, "sha256": "0"}', r"meta.json: damaged \(sha256 mismatch\)"),
        ('{"step": 1}', r"meta.json: damaged \(KeyError: 'sha256'\)"),
        ("[1]", r"meta.json: damaged \(TypeError"),
        ("{", r"meta.json: damaged \(JSONDecodeError"),
    ],
)
def test_a_damaged_meta_file_is_not_read(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "meta.json").write_text(content)
    with pytest.raises(CheckpointError, match=words):
        read_meta(tmp_path)


def test_pickled_code_never_runs(tmp_path: Path) -> None:
    folder = save(CheckpointStore(tmp_path / "run", keep=2), 1)

    class CreatesFile:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "unpickled",)

    (folder / "state.pt").write_bytes(pickle.dumps(CreatesFile(), protocol=2))
    write_meta(folder, {"step": 1, "best": False})
    with pytest.raises(CheckpointError, match="incomplete or damaged"):
        read_checkpoint(folder)
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.fault
def test_a_full_disk_leaves_the_previous_checkpoint_and_no_partial_files(tmp_path: Path) -> None:
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
    store = CheckpointStore(Path({str(tmp_path)!r}), keep=2)
    store.save(2, {{"w": torch.zeros(100_000)}}, {{}}, {{}}, best=True)
except CheckpointError as error:
    print(error)
"""
    # the limit on file sizes acts as a full disk: write() fails in the middle of a file
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stdout and "existing checkpoints are intact" in done.stdout
    assert sorted(tmp_path.iterdir()) == before
    found = store.latest()
    assert found is not None and found.meta["step"] == 1


def test_links_that_a_kill_prevented_are_restored(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    save(store, 1, best=True)
    save(store, 2, best=True)
    (tmp_path / "best").unlink()
    (tmp_path / "best").symlink_to("step_00000001")
    store.latest()
    assert (tmp_path / "best").resolve().name == "step_00000002"
