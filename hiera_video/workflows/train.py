"""Training runs: start or resume the training that a `Config` describes."""

from __future__ import annotations

import logging
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from hiera_video.config.load import flatten_config, load_config, save_config
from hiera_video.config.schema import Config
from hiera_video.data.manifest.record import Manifest
from hiera_video.errors import CheckpointError, ConfigError
from hiera_video.runtime.distributed import World, init_distributed
from hiera_video.runtime.run_folder import lock_run_folder, write_environment
from hiera_video.runtime.seed import use_deterministic_kernels
from hiera_video.runtime.signals import StopSignal
from hiera_video.train.checkpoint import CheckpointStore, read_meta
from hiera_video.train.list_digest import describe_changes
from hiera_video.train.memory import (
    choose_accumulation,
    read_choice,
    require_gpu,
    trial_step,
    write_choice,
)
from hiera_video.train.selection import should_stop
from hiera_video.train.state import make_state
from hiera_video.train.tasks import Task
from hiera_video.train.trainer import DONE, Evaluator, RunInfo, Trainer
from hiera_video.utils.text_files import count_of
from hiera_video.workflows.build import make_model
from hiera_video.workflows.train_components import (
    digest_lists,
    log_recipe,
    make_evaluator,
    make_loader,
    make_task,
    make_trainer,
    mixes_clips,
)

logger = logging.getLogger(__name__)
MAY_CHANGE = (
    "out_dir",  # a folder may be moved
    "data.root",  # and so may the videos: each job has its own disk
    "data.val_root",
    "data.test_root",
    "data.index",
    "data.test",
    "data.workers",
    "data.deadline_seconds",
    "data.max_broken",
    "augment.device",
    "model.checkpointing",
    "train.epochs",
    "train.early_stop",
    "train.best_margin",
    "train.eval_every",
    "train.allow_changed_lists",
    "train.accumulate",
    "train.fit_memory",
    "train.parallel",
    "train.static_graph",
    "train.compile",
    "train.cuda_graph",
    "train.checkpoint",
    "train.log_every",
    "train.logger",
    "train.save_minutes",
    "train.save_every",
    "train.keep",
    "test.",
    "features.",
    "probe.",
    "detect.boxes",
    "detect.eval_label_map",
)
"""Keys that may change when a run resumes: they do not change what it learns, or say how long."""
LISTS = (
    *("data.train", "data.val", "data.split"),  # and so data.train_also, data.train_repeats
    *("data.separator", "data.multi_label", "data.follow_links"),
    *("detect.train_boxes", "detect.excluded", "detect.label_map"),
)
"""Keys that may change too where the checkpoint has the digests of its lists."""


def train_run(
    config: Config,
    train: Manifest,
    val: Manifest | None,
    num_classes: int | None,
    *,
    task: Task | None = None,
    evaluator: Evaluator | None = None,
) -> int:
    """Train a model, or resume the run in `config.out_dir`.

    Under torchrun, every process calls this.

    Args:
        config: The experiment.
        train: Training videos.
        val: Validation videos; None for no validation.
        num_classes: Classes of the model; None for pre-training.
        task: Replaces the task that `train.task` names; labels and `val` are then ignored.
        evaluator: Replaces the validation that `train.task` names.

    Returns:
        The exit code of `Trainer.fit`.

    Raises:
        ConfigError: `out_dir` is in use, or holds a run with another recipe or on other lists.
        CheckpointError: No checkpoint of the run is intact, or the disk is full.
    """
    folder = Path(config.out_dir)
    with init_distributed() as world, lock_run_folder(folder) if world.is_main else nullcontext():
        if world.is_main:
            _require_same_run(config, folder, train, val)
            save_config(config, folder / "config.yaml")
            write_environment(folder)
        if config.train.deterministic:
            use_deterministic_kernels()
        if config.train.fit_memory:
            config = resolve_accumulation(config, train, num_classes, world, task)
        store = CheckpointStore(
            folder / "checkpoints",
            keep=config.train.keep,
            world=world,
            sharded=config.train.checkpoint == "sharded",
        )
        evaluator = evaluator or make_evaluator(config, None if task else val, world)
        trainer = make_trainer(
            config, train, num_classes, world, val=val, task=task, evaluator=evaluator, store=store
        )
        stopped = should_stop(trainer.progress, config.train)
        if stopped or trainer.progress.step >= trainer.total_steps:
            return _report_finished(config, trainer)
        need_labels = config.train.task in ("classify", "detect") and not task
        loader = make_loader(config, train, num_classes, trainer, need_labels=need_labels)
        if world.is_main:
            log_recipe(config, train, num_classes, trainer)
        with closing(trainer.log) if trainer.log else nullcontext(), StopSignal() as stop:
            return trainer.fit(loader, stop)


def resolve_accumulation(
    config: Config, train: Manifest, num_classes: int | None, world: World, task: Task | None
) -> Config:
    """Return `config` with the `train.accumulate` that fits the GPU's memory.

    The choice is recorded in the run folder and reused when the run resumes.

    Raises:
        ConfigError: The run is on a CPU.
        DeviceMemoryError: Not even the smallest micro-batch fits.
    """
    folder, batch_size = Path(config.out_dir), config.train.batch_size
    accumulate = read_choice(folder, batch_size, world)
    if accumulate is None:
        require_gpu(world.device)
        model = make_model(config, num_classes, pretrained=None).to(world.device)
        step = trial_step(
            _trial_trainer(config, train, num_classes, world, model, task),
            clip=(3, *config.input_size),
            repeats=config.clip.repeats,
            num_labels=num_classes if train.multi_label else None,
            boxes=config.train.task == "detect",
        )
        sharded = config.train.parallel == "fsdp" and world.size > 1
        accumulate = choose_accumulation(
            step,
            batch_size,
            world,
            sharded=sharded,
            pairs=mixes_clips(config),
            graph=config.train.cuda_graph,
        )
        if world.is_main:
            write_choice(folder, batch_size, world, accumulate)
    return replace(config, train=replace(config.train, accumulate=accumulate))


def _trial_trainer(
    config: Config,
    train: Manifest,
    num_classes: int | None,
    world: World,
    model: nn.Module,
    task: Task | None,
) -> Trainer:
    """Return a trainer whose ranks may take different numbers of steps."""
    alone = World(0, 1, world.device)
    settings = replace(config.train, cuda_graph=False)  # each size would keep a graph's memory
    return Trainer(
        make_state(model.train(), config.optim, settings, world),
        task or make_task(config, train, num_classes, model),
        optim=config.optim,
        train=settings,
        run=RunInfo(world=alone, steps_per_epoch=1, num_videos=1, seed=config.seed),
    )


def _report_finished(config: Config, trainer: Trainer) -> int:
    epochs = trainer.progress.step // trainer.run.steps_per_epoch
    if trainer.log:
        trainer.log.close()
        stopped, patience = should_stop(trainer.progress, config.train), config.train.early_stop
        key = f"train.early_stop={2 * (patience or 1)}" if stopped else f"train.epochs={2 * epochs}"
        logger.info(
            "%s: %s after %s: nothing to do; %s continues",
            config.out_dir,
            "stopped early" if stopped else "finished",
            count_of(epochs, "epoch"),
            key,
        )
    return DONE


def _require_same_run(config: Config, folder: Path, train: Manifest, val: Manifest | None) -> None:
    """Refuse to resume a run with another recipe or on other lists: the result would be neither's.

    Raises:
        ConfigError: A setting or a list differs; the message names what changed.
    """
    meta = _newest_meta(folder / "checkpoints")
    if meta is None:
        return
    lists = meta.get("lists")
    _require_same_settings(config, folder, lists_are_known=lists is not None)
    if lists is None:
        logger.info(
            "%s: its checkpoints are of an earlier version, which did not record the lists; they "
            "are assumed to be unchanged",
            folder,
        )
        return
    changes = []
    for split, manifest in (("train", train), ("val", val)):
        before, now = lists.get(split), digest_lists(config, train, val)[split]
        if before is None or now is None:
            changed = "" if before == now else f"{'no' if before is None else 'a'} list before"
        else:
            names, new_names = meta.get("class_names"), manifest.class_names if manifest else None
            changed = describe_changes(before, now, names=names, new_names=new_names)
        if changed:
            changes.append(f"data.{split} ({changed})")
    if not changes:
        return
    if config.train.allow_changed_lists:
        logger.warning("%s: resuming on changed lists: %s", folder, "; ".join(changes))
        return
    raise ConfigError(
        f"out_dir={folder}: holds a run on other lists: {'; '.join(changes)}; restore them to "
        "resume it, choose another out_dir, or set train.allow_changed_lists=true to resume on the "
        "changed lists"
    )


def _newest_meta(checkpoints: Path) -> dict[str, Any] | None:
    """Return the `meta.json` of the newest checkpoint whose own is intact.

    Returns:
        Its content; empty if all are damaged, None if there are no checkpoints.
    """
    folders = sorted(checkpoints.glob("step_*"))
    for folder in reversed(folders):
        with suppress(CheckpointError):
            return read_meta(folder)
    return {} if folders else None


def _require_same_settings(config: Config, folder: Path, *, lists_are_known: bool) -> None:
    written = folder / "config.yaml"
    if not written.exists():
        return
    before, now = flatten_config(load_config(written)), flatten_config(config)
    may_change = (*MAY_CHANGE, *(LISTS if lists_are_known else ()))
    changed = [
        key
        for key in now
        if before.get(key) != now[key]
        and not key.startswith(may_change)
        and not _was_moved(key, before.get(key), now[key])
    ]
    if changed:
        changes = ", ".join(f"{key} {before.get(key)} → {now[key]}" for key in changed)
        raise ConfigError(
            f"out_dir={folder}: holds a run with other settings: {changes}; restore them to resume "
            f"it, or choose another out_dir (model.pretrained={folder} starts from its weights)"
        )


def _was_moved(key: str, before: object, now: object) -> bool:
    """Return True if the value is a path that differs in its folder only."""
    both = isinstance(before, str) and isinstance(now, str)
    return both and key == "model.pretrained" and Path(str(before)).name == Path(str(now)).name
