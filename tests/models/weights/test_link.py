"""Weights behind a link that a training moves while they are read (issue I, 4.11)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hiera_video.errors import CheckpointError
from hiera_video.models.weights import load
from hiera_video.models.weights.link import read_through_link


def checkpoint(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "a").write_text(text)
    (folder / "b").write_text(text)


@pytest.fixture
def last(tmp_path: Path) -> Path:
    for step in (1, 2):
        checkpoint(tmp_path / f"step_{step}", str(step))
    link = tmp_path / "last"
    link.symlink_to("step_1")
    return link


def move(link: Path) -> None:
    """Do what a training does after a checkpoint."""
    link.unlink()
    link.symlink_to("step_2")
    shutil.rmtree(link.parent / "step_1")


def test_a_link_that_moves_is_read_again(last: Path) -> None:
    reads: list[str] = []

    def read(folder: Path) -> str:
        reads.append(folder.name)
        first = (folder / "a").read_text()
        if len(reads) == 1:
            move(last)
        return first + (folder / "b").read_text()

    assert read_through_link(last, read) == "22" and reads == ["step_1", "step_2"]


def test_all_files_come_from_one_checkpoint(last: Path) -> None:
    def read(folder: Path) -> str:
        first = (folder / "a").read_text()
        last.unlink()
        last.symlink_to("step_2")
        return first + (folder / "b").read_text()

    assert read_through_link(last, read) == "11"


def test_an_error_without_a_move_is_raised_at_once(last: Path) -> None:
    reads: list[str] = []

    def read(folder: Path) -> str:
        reads.append(folder.name)
        raise CheckpointError("damaged")

    for folder in (last, last.parent / "step_2"):
        with pytest.raises(CheckpointError, match="damaged"):
            read_through_link(folder, read)
    assert reads == ["step_1", "step_2"]


def test_weights_of_a_run_that_trains_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_run: Callable[[Path, int], Path]
) -> None:
    link = save_run(tmp_path / "run", 1)
    save_run(tmp_path / "run", 2)
    link.unlink()
    link.symlink_to("step_00000001")
    read_file, reads = load._read_file, list[str]()

    def read(path: Path) -> object:
        reads.append(path.parent.name)
        if len(reads) == 1:
            link.unlink()
            link.symlink_to("step_00000002")
            shutil.rmtree(path.parent)
        return read_file(path)

    monkeypatch.setattr(load, "_read_file", read)
    assert load.read_weights(tmp_path / "run").num_classes == 3
    assert reads == ["step_00000001", "step_00000002"]


@pytest.fixture
def save_run() -> Callable[[Path, int], Path]:
    from hiera_video.models.factory import create_model
    from hiera_video.train.checkpoint import CheckpointStore

    def save(run: Path, step: int) -> Path:
        run.mkdir(exist_ok=True)
        store = CheckpointStore(run / "checkpoints", keep=5)
        weights = create_model("hiera_micro_16x32", num_classes=3).state_dict()
        meta = {"model": {"num_classes": 3}, "class_names": None}
        store.save(step, weights, {}, meta, best=False)
        return run / "checkpoints" / "last"

    return save
