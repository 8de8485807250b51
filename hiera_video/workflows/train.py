"""Assembles a training run from a `Config`: what `tools/train_net.py` does after the checks that need no torch."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from hiera_video.config.load import flatten_config, load_config, save_config
from hiera_video.config.schema import Config
from hiera_video.data.dataset import TrainClips
from hiera_video.data.loading.balanced import BalancedClips
from hiera_video.data.loading.loader import BatchPlan, train_loader
from hiera_video.data.manifest.record import Manifest
from hiera_video.data.transforms.flip_labels import make_mirror
from hiera_video.data.transforms.train_eval import TrainTransform
from hiera_video.errors import CheckpointError, ConfigError
from hiera_video.eval.evaluate import Accuracy
from hiera_video.eval.reconstruct import Reconstruction
from hiera_video.models.macs import count_macs, count_parameters
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.runtime.distributed import World, init_distributed
from hiera_video.runtime.log import MetricLog
from hiera_video.runtime.precision import autocast
from hiera_video.runtime.run_folder import lock_run_folder, write_environment
from hiera_video.runtime.seed import use_deterministic_kernels
from hiera_video.runtime.signals import StopSignal
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.train.devices import compile_blocks
from hiera_video.train.loop import Evaluator, Run, fit
from hiera_video.train.memory import choose_parts, remember, remembered, trial_step
from hiera_video.train.optim import make_optimizer
from hiera_video.train.state import make_state
from hiera_video.train.tasks import Classify, Pretrain, Task, class_weights
from hiera_video.workflows.build import (
    make_first_model,
    make_model,
    make_quarantine_policy,
    make_views,
)

logger = logging.getLogger(__name__)
MAY_CHANGE = (
    "out_dir",  # a folder may be moved
    "data.root",  # and so may the videos: each job its own disk
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
"""Keys that a run may be continued with at another value: they do not change what is learnt."""


def train_run(
    config: Config,
    train: Manifest,
    val: Manifest | None,
    num_classes: int | None,
    *,
    task: Task | None = None,
    evaluator: Evaluator | None = None,
) -> int:
    """Train, or continue the run in `config.out_dir`. Returns the exit code of `fit`.

    `task` and `evaluator` take the place of those that the configuration names (docs/extending.md).
    """
    folder = Path(config.out_dir)
    own = Own(task, evaluator)
    with init_distributed() as here:
        if not here.is_main:
            return _train(config, train, val, num_classes, folder, here, own)
        with lock_run_folder(folder):
            _check_same_run(config, folder)
            save_config(config, folder / "config.yaml")
            write_environment(folder)
            return _train(config, train, val, num_classes, folder, here, own)


class Own(NamedTuple):
    """A task and an evaluator that no configuration names."""

    task: Task | None
    evaluator: Evaluator | None


def _train(
    config: Config,
    train: Manifest,
    val: Manifest | None,
    num_classes: int | None,
    folder: Path,
    here: World,
    own: Own,
) -> int:
    store = CheckpointStore(
        folder / "checkpoints",
        keep=config.train.keep,
        world=here,
        sharded=config.train.checkpoint == "sharded",
    )
    found = store.latest()
    _check_same_step(here.all_gather(found.meta["step"] if found else 0), folder)
    if config.train.deterministic:
        use_deterministic_kernels()
    config = (
        fitted(config, train, num_classes, folder, here, own.task)
        if config.train.fit_memory
        else config
    )
    torch.manual_seed(config.seed)
    names = None if own.task else train.class_names
    weights = None if found else _weights(config)
    model = make_first_model(config, num_classes, pretrained=weights, class_names=names).to(
        here.device
    )
    macs, parameters = count_macs(model, (3, *config.input_size)), count_parameters(model)
    optim = config.optim.for_batch(config.train.batch_size)
    state = make_state(model, optim, config.train, here)
    if found:
        state.load(found)
        logger.info("continuing %s after step %d", folder, state.progress.step)
        found = None  # weights and both moments would stay in memory to the end
    if config.train.compile:
        compile_blocks(model)
    first_step = state.progress.step
    plan = make_plan(config, train, here)
    log = None
    if here.is_main:
        log = MetricLog(
            folder, first_step=first_step, logger=config.train.logger, config=flatten_config(config)
        )
    batches = train_loader(
        make_clips(
            config, train, num_classes, need_labels=config.train.task == "classify" and not own.task
        ),
        plan,
        first_step=first_step,
        last_step=config.train.epochs * plan.steps_per_epoch,
        workers=config.data.workers,
    )
    if log:
        _announce(config, parameters, macs, train, num_classes)
    try:
        with StopSignal() as stop:
            return fit(
                state,
                own.task or make_task(config, train, num_classes, model),
                batches,
                own.evaluator or make_evaluator(config, None if own.task else val, here),
                optim=optim,
                train=config.train,
                run=Run(
                    folder=folder,
                    world=here,
                    store=store,
                    log=log,
                    steps_per_epoch=plan.steps_per_epoch,
                    num_videos=len(train.records),
                    max_broken=config.data.max_broken,
                    seed=config.seed,
                    flops_per_clip=6.0 * macs,
                    meta=describe(config, train, num_classes),
                ),
                stop=stop,
            )
    finally:
        if log:
            log.close()


def fitted(
    config: Config,
    train: Manifest,
    num_classes: int | None,
    folder: Path,
    here: World,
    task: Task | None,
) -> Config:
    """`config` with the `train.accumulate` that suits the memory at hand, found with a model that is then thrown away."""
    batch_size, sharded = config.train.batch_size, config.train.parallel == "fsdp" and here.size > 1
    parts = remembered(folder, batch_size, here)
    if parts is None:
        model = make_model(config, num_classes, pretrained=None).to(here.device).train()
        task = task or make_task(config, train, num_classes, model)
        step = trial_step(
            make_state(model, config.optim, config.train, here),
            task,
            here,
            precision=config.train.precision,
            clip=(3, *config.input_size),
            repeats=config.clip.repeats,
            num_labels=num_classes if train.multi_label else None,
        )
        parts = choose_parts(step, batch_size, here, sharded=sharded)
        if here.is_main:
            remember(folder, batch_size, here, parts)
    return replace(config, train=replace(config.train, accumulate=parts))


def make_plan(config: Config, train: Manifest, here: World) -> BatchPlan:
    """Which videos each step of each rank sees."""
    return BatchPlan(
        num_records=len(train.records),
        batch_size=config.train.batch_size,
        seed=config.seed,
        world=here.size,
        rank=here.rank,
        accumulate=config.train.accumulate,
    )


def make_clips(
    config: Config, train: Manifest, num_classes: int | None, *, need_labels: bool
) -> TrainClips:
    """The training clips of `train`."""
    kind = BalancedClips if config.train.balanced_sampling else TrainClips
    mirror = (
        make_mirror(train.class_names, config.augment.flip)
        if config.train.task == "classify"
        else None
    )
    augment = config.augment if mirror is None else replace(config.augment, flip=0.0)
    return kind(
        train,
        config.clip,
        TrainTransform(augment, config.input_size[1]),
        seed=config.seed,
        decoder=config.data.backend,
        on_broken=config.data.on_broken,
        need_labels=need_labels,
        num_classes=num_classes,
        fresh_repeats=config.train.task == "pretrain",
        quarantine=make_quarantine_policy(config),
        mirror=mirror,
    )


def make_task(config: Config, train: Manifest, num_classes: int | None, model: nn.Module) -> Task:
    """The task of `train.task`."""
    depth = len(model.blocks)  # type: ignore[arg-type]
    if isinstance(model, MaskedAutoencoderHiera):
        return Pretrain(
            draw_keep=model.draw_keep,
            tokens=model.unit_tokens.numel(),
            depth=depth,
            seed=config.seed,
        )
    assert num_classes is not None
    return Classify(
        num_classes=num_classes,
        multi_label=train.multi_label,
        augment=config.augment,
        depth=depth,
        seed=config.seed,
        class_weights=(
            class_weights(
                [record.label for record in train.records],
                num_classes,
                multi_label=train.multi_label,
            )
            if config.train.weighted_loss
            else None
        ),
    )


def make_evaluator(config: Config, val: Manifest | None, here: World) -> Evaluator | None:
    """Validation while training: the test's protocol with one centre view a video."""
    if val is None:
        return None
    views = make_views(config, val, clips=1, crops=1)
    if config.train.task == "pretrain":
        return Reconstruction(
            dataset=views,
            batch_size=config.test.batch_size,
            workers=config.data.workers,
            world=here,
            mean=config.augment.mean,
            std=config.augment.std,
            pictures=Path(config.out_dir) / "reconstructions"
            if config.mae.target == "pixels"
            else None,
        )
    return Accuracy(
        dataset=views,
        manifest=val,
        batch_size=config.test.batch_size,
        workers=config.data.workers,
        world=here,
        precision=config.test.precision,
    )


def describe(config: Config, train: Manifest, num_classes: int | None) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    return {
        "model": {
            **asdict(config.model),
            "num_classes": num_classes,
            "input_size": list(config.input_size),
        },
        "class_names": list(train.class_names) if train.class_names else None,
        "multi_label": train.multi_label,
    }


def rehearse(config: Config, train: Manifest) -> None:
    """`--dry-run`: the real model and two real steps at batch 1; prints what a user wants to know before hours pass.

    Any videos do, a folder without labels too: their class is then 0.
    """
    num_classes = config.model.num_classes or max(train.num_classes, 1)
    clips = make_clips(config, train, num_classes, need_labels=False)
    with init_distributed() as here:
        torch.manual_seed(config.seed)
        model = make_first_model(
            config, num_classes, pretrained=_weights(config), class_names=train.class_names
        )
        model = model.to(here.device).train()
        task, optimizer = (
            make_task(config, train, num_classes, model),
            make_optimizer(model, config.optim),
        )
        plan = BatchPlan(num_records=len(train.records), batch_size=1, seed=config.seed)
        macs = count_macs(model, (3, *config.input_size))
        _announce(config, count_parameters(model), macs, train, num_classes)
        seconds = 0.0
        for step, batches in enumerate(
            train_loader(clips, plan, first_step=0, last_step=2, workers=0)
        ):
            batch = batches[0].to(here.device)
            started = time.monotonic()
            with autocast(config.train.precision, here.device):
                output = task(model, batch, step)
            output.loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            loss = output.loss.item()  # waits for a GPU, which the calls above only ask
            seconds = time.monotonic() - started
            logger.info(
                "step %d: clips %s, loss %.4f, %.1f s", step, list(batch.clips.shape), loss, seconds
            )
    passes = config.train.epochs * len(train.records)
    logger.info(
        "full recipe: %d × %d videos, %s on this %s alone at this speed, without loading",
        config.train.epochs, len(train.records), timedelta(seconds=round(seconds * passes)), here.device.type,
    )  # fmt: skip


def _weights(config: Config) -> str | None:
    return None if config.model.pretrained == "none" else config.model.pretrained


def _announce(
    config: Config, parameters: int, macs: int, train: Manifest, num_classes: int | None
) -> None:
    logger.info(
        "%s: input %s, %.2f M parameters, %.1f GMACs a clip, %s",
        config.model.name, [3, *config.input_size], parameters / 1e6,
        macs / 1e9,
        f"{num_classes} classes" if config.train.task == "classify" else f"{config.mae.mask_ratio:.0%} masked",
    )  # fmt: skip
    logger.info(
        "%d videos; a step takes %d of them × %d clips, peak lr %s is for that batch; %d passes (%d effective epochs)",
        len(train.records), config.train.batch_size, config.clip.repeats, _rate(config), config.train.epochs,
        config.train.epochs * config.clip.repeats,
    )  # fmt: skip


def _rate(config: Config) -> str:
    """The peak rate and, where it was scaled, the rule: `0.0004 (optim.lr 0.0008 × 128 / 256)`."""
    optim, batch = config.optim, config.train.batch_size
    rule = (
        ""
        if optim.lr_for_batch is None
        else f" (optim.lr {optim.lr:g} × {batch} / {optim.lr_for_batch})"
    )
    return f"{optim.for_batch(batch).lr:g}{rule}"


def _check_same_step(steps: list[int], folder: Path) -> None:
    """Each rank reads the checkpoint by itself; a disk that not all of them see must not split them."""
    if len(set(steps)) > 1:
        raise CheckpointError(
            f"{folder}/checkpoints: the processes see different checkpoints (steps {steps}); out_dir must be on a disk that "
            "all machines share"
        )


def _check_same_run(config: Config, folder: Path) -> None:
    """Refuse to continue a run with another recipe: its result would be neither one's."""
    written = folder / "config.yaml"
    if not written.exists() or not any((folder / "checkpoints").glob("step_*")):
        return
    before, now = flatten_config(load_config(written)), flatten_config(config)
    changed = [key for key in now if before.get(key) != now[key] and not key.startswith(MAY_CHANGE)]
    if changed:
        listed = ", ".join(f"{key} {before.get(key)} → {now[key]}" for key in changed)
        raise ConfigError(
            f"out_dir={folder}: holds a run with {listed}; set them as they were to continue it, or choose another out_dir "
            f"(model.pretrained={folder} starts from what it has learnt)"
        )
