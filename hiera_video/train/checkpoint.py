"""Checkpoints that survive kill -9, full disks and flipped bits.

    <run>/checkpoints/step_00000120/model.safetensors     weights
                                    state.pt              optimizer …: loads with weights_only=True
                                    meta.json             step, model, class names, sha256 of the others and of itself
    <run>/checkpoints/last, best                          links to step folders

A folder is written under a temporary name on the same disk, `meta.json` last, everything fsynced, then renamed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hiera_video.errors import CheckpointError

logger = logging.getLogger(__name__)
FILES = ("model.safetensors", "state.pt")


@dataclass(frozen=True)
class Checkpoint:
    """What was loaded. `weights`: the model's state; `state`: the optimizer's and scaler's; `meta`: numbers and names."""

    folder: Path
    weights: dict[str, Tensor]
    state: dict[str, Any]
    meta: dict[str, Any]


class CheckpointStore:
    """The `checkpoints` folder of one run: saves, prunes, finds the newest that verifies."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def save(
        self, step: int, weights: dict[str, Tensor], state: dict[str, Any], meta: dict[str, Any], *, best: bool
    ) -> Path:
        """Write the checkpoint of `step`, point `last` (and `best`) at it, then delete those no longer kept.

        Raises `CheckpointError` if the disk refuses; the checkpoints that exist stay as they are.
        """
        target = self.folder / f"step_{step:08d}"
        partial = self.folder / f".{target.name}.partial"
        try:
            if not _verifies(target):
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
                _write_files(partial, weights, state, {**meta, "step": step, "best": best})
                shutil.rmtree(target, ignore_errors=True)
                partial.rename(target)
                _fsync(self.folder)
            _point(self.folder / "last", target)
            if best:
                _point(self.folder / "best", target)
        except (OSError, RuntimeError, SafetensorError) as error:  # what each writer makes of a full disk
            shutil.rmtree(partial, ignore_errors=True)
            raise CheckpointError(
                f"{target}: cannot be written ({error}); free disk space or choose another out_dir; the checkpoints "
                "before it are untouched"
            ) from error
        self._prune()
        return target

    def latest(self, *, repair: bool = True) -> Checkpoint | None:
        """The newest checkpoint whose files match their recorded hashes; damaged ones are named and passed over.

        repair: make good a link that a kill left behind (one process alone may).
        Raises `CheckpointError` where there are some and none verifies: a run that began anew would overwrite them.
        """
        folders = self._folders()
        for folder in reversed(folders):
            try:
                found = read_checkpoint(folder)
                if repair and found.meta["best"]:  # a kill between the rename and the link is made good here
                    _point(self.folder / "best", folder)
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

    def _prune(self) -> None:
        best = self.folder / "best"
        kept = {best.resolve(), *(path.resolve() for path in self._folders()[-self.keep :])}
        for path in self._folders():
            if path.resolve() not in kept:
                shutil.rmtree(path)
        for path in self.folder.glob(".step_*.partial"):  # a kill's leftovers
            shutil.rmtree(path)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Load one step folder. Raises `CheckpointError` where a file is missing, cut short or changed."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        if meta.pop("sha256") != _digest(meta):
            raise CheckpointError(f"{folder / 'meta.json'}: damaged (its sha256 is not the recorded one)")
        for name in FILES:
            recorded = meta["files"][name]
            if _sha256(folder / name) != recorded["sha256"]:
                raise CheckpointError(f"{folder / name}: damaged (its sha256 is not the recorded one)")
        weights = load_file(folder / "model.safetensors")
        state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # safetensors, zip and JSON readers each raise their own kinds
        raise CheckpointError(f"{folder}: incomplete or damaged ({type(error).__name__}: {error})") from error
    return Checkpoint(folder, weights, state, meta)


def _write_files(folder: Path, weights: dict[str, Tensor], state: dict[str, Any], meta: dict[str, Any]) -> None:
    save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, folder / FILES[0])
    torch.save(state, folder / FILES[1])
    for name in FILES:
        _fsync(folder / name)
    seal(folder, meta)
    _fsync(folder / "meta.json")
    _fsync(folder)


def seal(folder: Path, meta: dict[str, Any]) -> None:
    """Write `meta.json` with the hashes of the files in `folder`, and its own."""
    files = {name: {"sha256": _sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in FILES}
    meta = {**meta, "files": files}
    (folder / "meta.json").write_text(json.dumps({**meta, "sha256": _digest(meta)}, indent=1))


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
    _fsync(link.parent)


def _digest(meta: dict[str, Any]) -> str:
    """Of what `meta.json` says, so that a flipped digit in it is noticed too."""
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
