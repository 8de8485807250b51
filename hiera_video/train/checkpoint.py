"""Checkpoints that survive kills, full disks and flipped bits.

    <run>/checkpoints/step_00000120/model.safetensors     weights
                                    state.pt              optimizer and scaler
                                    meta.json             step, model, class names, sha256 hashes
    <run>/checkpoints/last, best                          links to step folders

A checkpoint is written to a temporary folder on the same disk, `meta.json` last, synced to disk and
renamed. Files are loaded with `weights_only=True` after their hashes are verified. With
`train.checkpoint=sharded` each process writes some of the tensors, each of them unsharded, so that
any number of processes can read them:

    model-00001-of-00002.safetensors  state-00001-of-00002.pt  …  model.safetensors.index.json
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
from hiera_video.train.checkpoint_shards import file_names, merge_shards, take_shard
from hiera_video.utils.atomic_files import sync
from hiera_video.utils.hashing import file_sha256, json_sha256
from hiera_video.utils.text_files import DAMAGED_JSON

logger = logging.getLogger(__name__)
FILES = file_names(0, 1)
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was loaded and verified."""

    folder: Path
    """Its step folder."""
    weights: dict[str, Tensor]
    """The model's state."""
    state: dict[str, Any]
    """State of optimizer and scaler."""
    meta: dict[str, Any]
    """Content of `meta.json`."""


class CheckpointStore:
    """The `checkpoints` folder of a run.

    Args:
        folder: The folder.
        keep: Number of newest checkpoints to keep, besides the best and milestones.
        world: The ranks; all of them must call each method.
        sharded: Each rank writes a shard of every checkpoint.
    """

    def __init__(
        self, folder: Path, *, keep: int, world: World = SINGLE_PROCESS, sharded: bool = False
    ) -> None:
        self.folder, self.keep, self.world = folder, keep, world
        self.num_shards = world.size if sharded else 1
        self.shard = world.rank if sharded else 0 if world.is_main else None

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
        """Write the checkpoint of `step`, update the links and delete old checkpoints.

        Args:
            step: Optimizer steps done.
            weights: The model's state.
            state: State of optimizer and scaler.
            meta: Further content of `meta.json`.
            best: Point the link `best` at this checkpoint too.
            milestone: Name of a link that keeps this checkpoint for good.

        Returns:
            The step folder.

        Raises:
            CheckpointError: A rank's disk is full or not writable, and existing checkpoints are
                intact; or the folder of the run was deleted. Raised on every rank.
        """
        target = self.folder / f"step_{step:08d}"
        partial = self.folder / f".{target.name}.partial"

        def on_main(work: Callable[[], Any]) -> list[Any]:
            return self._on_ranks(target, partial, lambda: work() if self.world.is_main else None)

        if on_main(lambda: self._prepare(target, partial))[0]:
            trees = [take_shard(tree, self.shard, self.num_shards) for tree in (weights, state)]
            written = self._on_ranks(target, partial, lambda: self._write(partial, *trees))
            facts = {"step": step, "best": best, "milestone": milestone}
            complete = {**meta, **facts, "files": merge_shards(written)}
            on_main(lambda: _publish(target, partial, complete))
        on_main(lambda: self._link(target, best, milestone))
        return target

    def _on_ranks(self, target: Path, partial: Path, work: Callable[[], Any]) -> list[Any]:
        """Return the result of `work` on each rank, or raise `CheckpointError` on all of them."""
        result = problem = cause = None
        try:
            result = work()
        # a full disk: OSError from files, RuntimeError from torch.save, SafetensorError
        except (OSError, RuntimeError, SafetensorError) as error:
            problem, cause = str(error), error
        results = self.world.all_gather((result, problem))
        problems = [problem for _, problem in results if problem is not None]
        if problems:
            if self.world.is_main:
                shutil.rmtree(partial, ignore_errors=True)
            if not self.folder.parent.exists():
                raise CheckpointError(
                    f"{self.folder.parent}: was deleted meanwhile; run the same command again to "
                    "start over"
                ) from cause
            raise CheckpointError(
                f"{target}: cannot be written ({problems[0]}); free disk space or choose another "
                "out_dir; existing checkpoints are intact"
            ) from cause
        return [result for result, _ in results]

    def _prepare(self, target: Path, partial: Path) -> bool:
        """Create an empty `partial`; return False if `target` is complete already."""
        try:
            read_checkpoint(target)
        except CheckpointError:
            shutil.rmtree(partial, ignore_errors=True)
            self.folder.mkdir(exist_ok=True)  # fails if the folder of the run was deleted
            partial.mkdir()
            return True
        return False

    def _write(
        self, partial: Path, weights: dict[str, Tensor], state: dict[str, Any]
    ) -> dict[str, Any]:
        """Write this rank's files and return their entries in `meta.json`."""
        if self.shard is None:
            return {}
        weights_name, state_name = file_names(self.shard, self.num_shards)
        save_file(weights, partial / weights_name)
        torch.save(state, partial / state_name)
        entries = {}
        for name in (weights_name, state_name):
            sync(partial / name)
            entries[name] = _file_entry(partial / name)
        if self.num_shards > 1:
            entries[weights_name]["tensors"] = list(weights)
        return entries

    def _link(self, target: Path, best: bool, milestone: str | None) -> None:
        _point(self.folder / "last", target)
        self._mark(target, best, milestone)
        self._prune(target)

    def _mark(self, target: Path, best: bool, milestone: str | None) -> None:
        for name in (*(["best"] if best else []), *([milestone] if milestone else [])):
            _point(self.folder / name, target)

    def latest(self) -> Checkpoint | None:
        """Load the newest checkpoint whose hashes verify; damaged ones are logged and skipped.

        Returns:
            The checkpoint; None if the run has none.

        Raises:
            CheckpointError: All checkpoints are damaged. A run that started over would overwrite
                them.
        """
        folders = self._folders()
        for folder in reversed(folders):
            try:
                found = read_checkpoint(folder)
            except CheckpointError as error:
                logger.warning("%s; falling back to the previous checkpoint", error)
                continue
            if self.world.is_main:  # a kill may have come between the rename and the links
                self._mark(folder, found.meta["best"], found.meta.get("milestone"))
            return found
        if folders:
            raise CheckpointError(
                f"{self.folder}: all {len(folders)} checkpoints are damaged (see above); restore "
                "one, or delete the folder to start over"
            )
        return None

    def _folders(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step_*") if path.is_dir())

    def _prune(self, newest: Path) -> None:
        """Delete old checkpoints; damaged ones of later steps, skipped by `latest`, stay."""
        folders = [path for path in self._folders() if path.name <= newest.name]
        linked = (path for path in self.folder.iterdir() if path.is_symlink())
        kept = {path.resolve() for path in (*linked, *folders[-self.keep :])}
        for path in folders:
            if path.resolve() not in kept:
                shutil.rmtree(path)
        for path in self.folder.glob(".step_*.partial"):  # left by a kill
            shutil.rmtree(path)


def read_meta(folder: Path) -> dict[str, Any]:
    """Load and verify the `meta.json` of a step folder.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    path = folder / "meta.json"
    try:
        meta: dict[str, Any] = json.loads(path.read_text())
        intact = meta.pop("sha256") == json_sha256(meta)
    except DAMAGED_JSON as error:
        raise CheckpointError(f"{path}: damaged ({type(error).__name__}: {error})") from error
    if not intact:
        raise CheckpointError(f"{path}: damaged (sha256 mismatch)")
    return meta


def read_checkpoint(folder: Path) -> Checkpoint:
    """Load and verify one step folder, written by any number of processes.

    Several shards are memory-mapped, so that a sharded run loads only what it uses.

    Raises:
        CheckpointError: A file is missing, truncated or changed.
    """
    try:
        meta = read_meta(folder)
        for name, entry in meta["files"].items():
            if Path(name).name != name or file_sha256(folder / name) != entry["sha256"]:
                raise CheckpointError(f"{folder / name}: damaged (sha256 mismatch)")
        names = sorted(meta["files"])
        weights = merge_shards(
            load_file(folder / name) for name in names if name.endswith(".safetensors")
        )
        states = [name for name in names if name.endswith(".pt")]
        mapped = len(states) > 1
        state = merge_shards(
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
    """Complete the files of all ranks and rename the folder to its final name."""
    weight_map = {
        tensor: name for name, entry in meta["files"].items() for tensor in entry.pop("tensors", ())
    }
    if weight_map:  # as in Hugging Face's sharded checkpoints, so that other tools can load them
        index = json.dumps({"metadata": {}, "weight_map": weight_map}, indent=1)
        (partial / INDEX).write_text(index)
        sync(partial / INDEX)
        meta["files"][INDEX] = _file_entry(partial / INDEX)
    write_meta(partial, meta, meta["files"])
    sync(partial / "meta.json")
    sync(partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    sync(target.parent)


def write_meta(folder: Path, meta: dict[str, Any], files: dict[str, Any] | None = None) -> None:
    """Write `meta.json` with the hashes of the checkpoint's files and its own.

    Args:
        folder: The checkpoint.
        meta: The content.
        files: Entry of each file; None computes those of `FILES`.
    """
    meta = {**meta, "files": files or {name: _file_entry(folder / name) for name in FILES}}
    (folder / "meta.json").write_text(json.dumps({**meta, "sha256": json_sha256(meta)}, indent=1))


def _file_entry(path: Path) -> dict[str, Any]:
    return {"sha256": file_sha256(path), "bytes": path.stat().st_size}


def _point(link: Path, target: Path) -> None:
    """Replace the symbolic link `link` atomically."""
    partial = link.with_name(f".{link.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target.name)
    partial.replace(link)
    sync(link.parent)
