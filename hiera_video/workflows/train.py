"""Training runs: start or resume the training that a `Config` describes."""

from __future__ import annotations

from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path

from torch import nn

from hiera_video.config.load import flatten_config, load_config, save_config
from hiera_video.config.schema import Config
from hiera_video.data.manifest.record import Manifest
from hiera_video.errors import ConfigError
from hiera_video.runtime.distributed import World, init_distributed
from hiera_video.runtime.run_folder import lock_run_folder, write_environment
from hiera_video.runtime.seed import use_deterministic_kernels
from hiera_video.runtime.signals import StopSignal
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.train.memory import (
    choose_accumulation,
    read_choice,
    require_gpu,
    trial_step,
    write_choice,
)
from hiera_video.train.state import make_state
from hiera_video.train.tasks import Task
from hiera_video.train.trainer import Evaluator, RunInfo, Trainer
from hiera_video.workflows.build import make_model
from hiera_video.workflows.train_components import (
    log_recipe,
    make_evaluator,
    make_loader,
    make_task,
    make_trainer,
)

MAY_CHANGE = (
    "out_dir",  # a folder may be moved
    "data.root",  # and so may the videos: each job has its own disk
    "data.index",
    "data.workers",
    "data.deadline_seconds",
    "data.max_broken",
    "augment.device",
    "model.checkpointing",
    "train.accumulate",
    "train.fit_memory",
    "train.parallel",
    "train.static_graph",
    "train.checkpoint",
    "train.log_every",
    "train.logger",
    "train.save_minutes",
    "train.keep",
    "test.",
    "features.",
    "probe.",
)
"""Keys that may change when a run resumes, because they do not change what it learns."""


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
        ConfigError: `out_dir` is in use, or holds a run with another recipe.
        CheckpointError: No checkpoint of the run is intact, or the disk is full.
    """
    folder = Path(config.out_dir)
    with init_distributed() as world, lock_run_folder(folder) if world.is_main else nullcontext():
        if world.is_main:
            _require_same_recipe(config, folder)
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
            config, train, num_classes, world, task=task, evaluator=evaluator, store=store
        )
        need_labels = config.train.task == "classify" and not task
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
        )
        sharded = config.train.parallel == "fsdp" and world.size > 1
        accumulate = choose_accumulation(step, batch_size, world, sharded=sharded)
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
    return Trainer(
        make_state(model.train(), config.optim, config.train, world),
        task or make_task(config, train, num_classes, model),
        optim=config.optim,
        train=config.train,
        run=RunInfo(world=alone, steps_per_epoch=1, num_videos=1, seed=config.seed),
    )


def _require_same_recipe(config: Config, folder: Path) -> None:
    """Refuse to resume a run with another recipe: the result would be neither one's."""
    written = folder / "config.yaml"
    if not written.exists() or not any((folder / "checkpoints").glob("step_*")):
        return
    before, now = flatten_config(load_config(written)), flatten_config(config)
    changed = [key for key in now if before.get(key) != now[key] and not key.startswith(MAY_CHANGE)]
    if changed:
        changes = ", ".join(f"{key} {before.get(key)} → {now[key]}" for key in changed)
        raise ConfigError(
            f"out_dir={folder}: holds a run with other settings: {changes}; restore them to resume "
            f"it, or choose another out_dir (model.pretrained={folder} starts from its weights)"
        )
