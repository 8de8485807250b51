"""`--dry-run`: two steps of the training that a `Config` describes, without writing any file."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hiera_video.config.schema import Config
from hiera_video.data.loading.loader import ClipBatch
from hiera_video.data.manifest.record import Manifest
from hiera_video.errors import ConfigError
from hiera_video.runtime.distributed import World, init_distributed
from hiera_video.runtime.seed import use_deterministic_kernels
from hiera_video.runtime.signals import StopSignal
from hiera_video.train.stats import StepStats
from hiera_video.train.trainer import Trainer
from hiera_video.utils.text_files import count_of
from hiera_video.workflows.train_components import (
    log_recipe,
    make_loader,
    make_plan,
    make_trainer,
)

logger = logging.getLogger(__name__)
STEPS = 2


class DryRunTrainer(Trainer):
    """A trainer that logs each step's clips, loss and time."""

    seconds = 0.0
    """Duration of the last step, without loading."""
    last_stats: StepStats | None = None
    """Statistics of the last step, unless it was not finite."""

    def train_step(self, batches: Sequence[ClipBatch], stop: StopSignal) -> int | None:
        """Take one optimizer step and log it."""
        self.last_stats = None
        started = time.monotonic()
        code = super().train_step(batches, stop)
        self.seconds = time.monotonic() - started
        model: Any = self.state.model
        if self.last_stats and self.run.world.is_main:
            logger.info(
                "step %d: clips %s%s, loss %.4f, %.1f s",
                self.progress.step - 1,
                [len(batches[0].row), 3, *model.config.input_size],
                f" × {len(batches)} micro-batches" if len(batches) > 1 else "",
                self.last_stats.averages["loss"],
                self.seconds,
            )
        return code

    def end_step(self, stats: StepStats, stop: StopSignal) -> int | None:
        """End the step and keep its statistics."""
        self.last_stats = stats
        return super().end_step(stats, stop)


def dry_run(config: Config, train: Manifest) -> int:
    """Train for two steps at the smallest batch; log the recipe, the steps and an estimate.

    Everything else is as in a real run: pre-trained weights, loader workers, mixup, precision, loss
    scale, schedule, clipping, gradient accumulation (two micro-batches) and ranks.

    Args:
        config: The experiment.
        train: Any videos, also without labels; their class is then 0.

    Returns:
        The exit code of `Trainer.fit`.
    """
    num_classes = config.model.num_classes or max(train.num_classes, 1)
    with init_distributed() as world:
        if config.train.deterministic:
            use_deterministic_kernels()
        _check_plan(config, train, world)
        small, videos = shrink(config, train, world.size)
        trainer = make_trainer(
            small, videos, num_classes, world, trainer_class=DryRunTrainer, max_steps=STEPS
        )
        assert isinstance(trainer, DryRunTrainer)
        trainer.reads_late = False
        loader = make_loader(small, videos, num_classes, trainer, need_labels=False)
        if world.is_main:
            log_recipe(config, train, num_classes, trainer)
        with StopSignal() as stop:
            code = trainer.fit(loader, stop)
        if world.is_main and code == 0:
            total = config.train.epochs * len(train.records)
            seconds = trainer.seconds / small.train.batch_size * total
            logger.info(
                "full recipe: %d × %s, %s on %s at this speed, without loading",
                config.train.epochs,
                count_of(len(train.records), "video"),
                timedelta(seconds=round(seconds)),
                f"{world.size} × {world.device.type}" if world.size > 1 else world.device.type,
            )
    return code


def _check_plan(config: Config, train: Manifest, world: World) -> None:
    """Fail where the batches of a real run would; on a trial without labels, only warn."""
    try:
        make_plan(config, train, world)
    except ConfigError as error:
        if train.labels_present or config.train.task == "pretrain":
            raise
        logger.warning("warning: %s", error)


def shrink(config: Config, train: Manifest, num_processes: int) -> tuple[Config, Manifest]:
    """Return `config` with the smallest batch, and `train` with enough videos for two steps.

    The batch is one video for each micro-batch and process.
    Learning rates stay those of the recipe's batch. Videos are repeated where there are too few.
    """
    accumulate = min(config.train.accumulate, 2)
    batch_size = num_processes * accumulate
    copies = math.ceil(STEPS * batch_size / max(len(train.records), 1))
    small = replace(
        config,
        optim=config.optim.for_batch(config.train.batch_size),
        train=replace(config.train, batch_size=batch_size, accumulate=accumulate),
        data=replace(config.data, max_broken=1.0),
    )
    return small, replace(train, records=train.records * copies)
