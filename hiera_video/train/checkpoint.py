"""Checkpoints that survive kill -9, full disks and flipped bits.

    <run>/checkpoints/step_00000120/model.safetensors     weights
                                    state.pt              optimizer …: loads with weights_only=True
                                    meta.json             step, model, class names, sha256 of the others and of itself
    <run>/checkpoints/last, best                          links to step folders

A folder is written under a temporary name on the same disk, `meta.json` last, everything fsynced, then renamed. With
`train.checkpoint=sharded` each process writes a part of the tensors, whole ones, so that any number of processes reads them:

    model-00001-of-00002.safetensors  state-00001-of-00002.pt  …  model.safetensors.index.json  meta.json
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hiera_video.errors import CheckpointError
from hiera_video.runtime.distributed import SINGLE_PROCESS, World
from hiera_video.train.parts import file_names, join, take
from hiera_video.utils.atomic_files import sync
from hiera_video.utils.hashing import file_sha256, json_sha256

logger = logging.getLogger(__name__)
FILES = file_names(0, 1)
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Checkpoint:
    """What was loaded. `weights`: the model's state; `state`: the optimizer's and scaler's; `meta`: numbers and names."""

    folder: Path
    weights: dict[str, Tensor]
    state: dict[str, Any]
    meta: dict[str, Any]


class CheckpointStore:
    """The `checkpoints` folder of one run: saves, prunes, finds the newest that verifies.

    world: the run's processes, all of which call each method. sharded: each of them writes a part of a checkpoint.
    """

    def __init__(
        self, folder: Path, *, keep: int, world: World = SINGLE_PROCESS, sharded: bool = False
    ) -> None:
        self.folder, self.keep, self.world = folder, keep, world
        self.parts = world.size if sharded else 1
        self.part = world.rank if sharded else 0 if world.is_main else None

    def save(
        self,
        step: int,
        weights: dict[str, Tensor],
        state: dict[str, Any],
        meta: dict[str, Any],
        *,
        best: bool,
        milestone: str | None = None,
    ) -> Path:
        """Write the checkpoint of `step`, point `last` (and `best`, and `milestone`, which keeps it for good) at it, then
        delete those no longer kept.

        Raises `CheckpointError` on every rank if the disk refuses one; the checkpoints that exist stay as they are.
        """
        target = self.folder / f"step_{step:08d}"
        partial = self.folder / f".{target.name}.partial"
        if self._agreed(target, partial, lambda: self._begin(target, partial), main_alone=True)[0]:
            mine = [take(tree, self.part, self.parts) for tree in (weights, state)]
            written = self._agreed(target, partial, lambda: self._write(partial, *mine))
            sealed = {
                **meta,
                "step": step,
                "best": best,
                "milestone": milestone,
                "files": join(written),
            }
            self._agreed(
                target, partial, lambda: _publish(target, partial, sealed), main_alone=True
            )
        self._agreed(target, partial, lambda: self._link(target, best, milestone), main_alone=True)
        return target

    def _agreed(
        self, target: Path, partial: Path, work: Callable[[], Any], *, main_alone: bool = False
    ) -> list[Any]:
        """What `work` came to on each rank, once all (or the first alone) have done it."""
        answer = problem = cause = None
        try:
            answer = work() if self.world.is_main or not main_alone else None
        except (
            OSError,
            RuntimeError,
            SafetensorError,
        ) as error:  # what each writer makes of a full disk
            problem, cause = str(error), error
        answers = self.world.all_gather((answer, problem))
        problems = [problem for _, problem in answers if problem is not None]
        if problems:
            if self.world.is_main:
                shutil.rmtree(partial, ignore_errors=True)
            raise CheckpointError(
                f"{target}: cannot be written ({problems[0]}); free disk space or choose another out_dir; the checkpoints "
                "before it are untouched"
            ) from cause
        return [answer for answer, _ in answers]

    def _begin(self, target: Path, partial: Path) -> bool:
        """Whether `target` has to be written; an empty `partial` is then there."""
        if _verifies(target):
            return False
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        return True

    def _write(
        self, partial: Path, weights: dict[str, Tensor], state: dict[str, Any]
    ) -> dict[str, Any]:
        """This rank's files, and what is to be recorded of them."""
        if self.part is None:
            return {}
        names = file_names(self.part, self.parts)
        save_file(weights, partial / names[0])
        torch.save(state, partial / names[1])
        for name in names:
            sync(partial / name)
        recorded = {name: _recorded(partial / name) for name in names}
        return (
            recorded
            if self.parts == 1
            else {**recorded, names[0]: {**recorded[names[0]], "tensors": list(weights)}}
        )

    def _link(self, target: Path, best: bool, milestone: str | None) -> None:
        _point(self.folder / "last", target)
        self._mark(target, best, milestone)
        self._prune(target)

    def _mark(self, target: Path, best: bool, milestone: str | None) -> None:
        for name in (*(["best"] if best else []), *([milestone] if milestone else [])):
            _point(self.folder / name, target)

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint whose files match their recorded hashes; damaged ones are named and passed over.

        Raises `CheckpointError` where there are some and none verifies: a run that began anew would overwrite them.
        """
        folders = self._folders()
        for folder in reversed(folders):
            try:
                found = read_checkpoint(folder)
                if self.world.is_main:  # a kill between the rename and the links is made good here
                    self._mark(folder, found.meta["best"], found.meta.get("milestone"))
                return found
            except CheckpointError as error:
                logger.warning("%s; falling back to the one before", error)
        if folders:
            raise CheckpointError(
                f"{self.folder}: none of its {len(folders)} checkpoints can be trusted (see above); restore one, or delete "
                "that folder to start anew"
            )
        return None

    def _folders(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step_*") if path.is_dir())

    def _prune(self, newest: Path) -> None:
        """Folders of later steps are damaged ones, which `latest` passed over: they do not count."""
        folders = [path for path in self._folders() if path.name <= newest.name]
        marked = (
            path for path in self.folder.iterdir() if path.is_symlink()
        )  # the best, and milestones
        kept = {path.resolve() for path in (*marked, *folders[-self.keep :])}
        for path in folders:
            if path.resolve() not in kept:
                shutil.rmtree(path)
        for path in self.folder.glob(".step_*.partial"):  # a kill's leftovers
            shutil.rmtree(path)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Load one step folder, in one file or in parts. Raises `CheckpointError` where a file is missing, cut short or changed.

    Parts are mapped, so that a sharded run holds in memory only what it takes of them.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text())
        if meta.pop("sha256") != json_sha256(meta):
            raise CheckpointError(
                f"{folder / 'meta.json'}: damaged (its sha256 is not the recorded one)"
            )
        for name, recorded in meta["files"].items():
            if Path(name).name != name or file_sha256(folder / name) != recorded["sha256"]:
                raise CheckpointError(
                    f"{folder / name}: damaged (its sha256 is not the recorded one)"
                )
        names = sorted(meta["files"])
        weights = join(load_file(folder / name) for name in names if name.endswith(".safetensors"))
        states = [name for name in names if name.endswith(".pt")]
        mapped = len(states) > 1
        state = join(
            torch.load(folder / name, map_location="cpu", weights_only=True, mmap=mapped)
            for name in states
        )
    except CheckpointError:
        raise
    except Exception as error:  # safetensors, zip and JSON readers each raise their own kinds
        raise CheckpointError(
            f"{folder}: incomplete or damaged ({type(error).__name__}: {error})"
        ) from error
    return Checkpoint(folder, weights, state, meta)


def _publish(target: Path, partial: Path, meta: dict[str, Any]) -> None:
    """Seal what the ranks wrote and give it its name."""
    index = {
        tensor: name
        for name, recorded in meta["files"].items()
        for tensor in recorded.pop("tensors", ())
    }
    if index:  # as Hugging Face's sharded checkpoints have it, so that other tools find the weights
        (partial / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}, indent=1))
        sync(partial / INDEX)
        meta["files"][INDEX] = _recorded(partial / INDEX)
    seal(partial, meta, meta["files"])
    sync(partial / "meta.json")
    sync(partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    sync(target.parent)


def seal(folder: Path, meta: dict[str, Any], files: dict[str, Any] | None = None) -> None:
    """Write `meta.json` with the hashes of the files in `folder` (`files`, where they are known), and its own."""
    meta = {**meta, "files": files or {name: _recorded(folder / name) for name in FILES}}
    (folder / "meta.json").write_text(json.dumps({**meta, "sha256": json_sha256(meta)}, indent=1))


def _recorded(path: Path) -> dict[str, Any]:
    return {"sha256": file_sha256(path), "bytes": path.stat().st_size}


def _verifies(folder: Path) -> bool:
    try:
        read_checkpoint(folder)
    except CheckpointError:
        return False
    return True


def _point(link: Path, target: Path) -> None:
    fresh = link.with_name(f".{link.name}.partial")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target.name)
    fresh.replace(link)
    sync(link.parent)
