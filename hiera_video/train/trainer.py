"""The training loop, for every task, model and number of devices.

A training step from top to bottom: `Trainer.fit` → `train_step` → `end_step`. On a GPU the host
queues work and reads a step's statistics while the device computes the next one.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from hiera_video.data.loading.loader import ClipBatch
from hiera_video.runtime.distributed import World
from hiera_video.runtime.log import MetricLog
from hiera_video.runtime.signals import StopSignal
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.train.config import OptimConfig, TrainConfig
from hiera_video.train.devices import explain_out_of_memory
from hiera_video.train.feed import feed_steps
from hiera_video.train.forward_backward import ForwardBackward, Sums
from hiera_video.train.meter import Clock, Meter, RunTimer, format_numbers, progress_line
from hiera_video.train.optim import clip_gradients, set_lr
from hiera_video.train.parallel import unsharded_model
from hiera_video.train.reports import report_non_finite, report_unreadable
from hiera_video.train.schedule import lr_at
from hiera_video.train.selection import (
    check_evaluator,
    check_numbers,
    log_stop,
    record_score,
    should_stop,
)
from hiera_video.train.state import TrainState
from hiera_video.train.stats import QueuedStats, StepStats, reduce_signal, reduce_step_stats
from hiera_video.train.tasks import Task
from hiera_video.train.watch import (
    CollapseWatch,
    LoaderWatch,
    UnreadableWatch,
    warn_of_left_out,
)

logger = logging.getLogger(__name__)
DONE, UNREADABLE_LIMIT, NON_FINITE = 0, 3, 4
QUEUED_DEVICES = ("cuda",)
"""Devices that work through a queue while the host continues: the host reads a step's statistics
after it has queued the next step's forward and backward pass, so that the device never idles."""


class Evaluator(Protocol):
    """Computes validation metrics of a model."""

    @property
    def score(self) -> str:
        """Name of the metric that chooses the best checkpoint."""

    @property
    def higher_is_better(self) -> bool:
        """Direction of the score."""

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Evaluate `model` and return its metrics; called on every rank."""


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """Facts about a run that do not change while it trains."""

    world: World
    """The ranks."""
    steps_per_epoch: int
    """Optimizer steps of an epoch."""
    num_videos: int
    """Videos of the training list."""
    seed: int
    """The run's seed."""
    max_broken: float = 1.0
    """Largest share of unreadable videos, of `num_videos` in each epoch."""
    flops_per_clip: float = 0.0
    """Operations of forward and backward pass (MACs × 2 × 3), for the logged MFU."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Written into every checkpoint: model, class names."""


@dataclass(frozen=True)
class OpenStep:
    """An optimizer step whose statistics the host has not read."""

    stats: QueuedStats
    rows: list[Tensor]
    """Manifest rows of its videos on this rank, by micro-batch."""


class Trainer:
    """Trains a model from its current step to the end of the run.

    Args:
        state: Model, optimizer and progress, updated in place.
        task: Turns a micro-batch into a loss.
        optim: Learning-rate schedule and clipping, for the batch of this run (`for_batch`).
        train: Length, precision, validation and checkpoint intervals.
        run: Facts about the run.
        evaluator: Validates the model at the end of epochs; None for no validation.
        store: Receives checkpoints; None writes none.
        log: Receives metrics; None on all ranks but the first, or to write none.
        max_steps: Stop after this many steps, without a checkpoint of the last one; None trains to
            the end.
        clock: Source of the time.
    """

    def __init__(
        self,
        state: TrainState,
        task: Task,
        *,
        optim: OptimConfig,
        train: TrainConfig,
        run: RunInfo,
        evaluator: Evaluator | None = None,
        store: CheckpointStore | None = None,
        log: MetricLog | None = None,
        max_steps: int | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.state, self.progress = state, state.progress
        self.optim, self.train, self.run = optim, train, run
        if evaluator is not None:
            check_evaluator(evaluator)
        self.evaluator, self.store, self.log = evaluator, store, log
        self.total_steps = train.epochs * run.steps_per_epoch
        first = self.progress.step
        self.last_step = min(self.total_steps, first + (max_steps or self.total_steps))
        self.forward_backward = ForwardBackward(state, task, train, run.world, run.seed)
        self.meter = Meter(run.world, run.flops_per_clip, clock)
        self.timer = RunTimer(first, self.total_steps, clock)
        self.loader_watch, self.unreadable_watch = LoaderWatch(), UnreadableWatch()
        self.collapse_watch = CollapseWatch()
        self.reads_late = run.world.device.type in QUEUED_DEVICES
        self._open: OpenStep | None = None

    def fit(self, loader: Iterator[Sequence[ClipBatch]], stop: StopSignal) -> int:
        """Train until the last step or until something stops the run.

        Args:
            loader: Yields this rank's micro-batches of one optimizer step after the other; closed
                at the end.
            stop: Signals that end the run after the current step.

        Returns:
            The exit code: 0 done; 3 too many unreadable videos; 4 non-finite loss or gradient, with
            the weights as before that step; 128 + n after signal n. In all cases but 4 the last
            step has a checkpoint.

        Raises:
            DeviceMemoryError: A step ran out of device memory.
        """
        self.state.model.train()
        with closing(feed_steps(loader, self.run.world.device)) as steps:
            while self._next_step < self.last_step:
                with self.meter.waiting():
                    batches = next(steps)
                code = self.train_step(batches, stop)
                if code is not None:
                    return code
        return DONE

    @property
    def _next_step(self) -> int:
        return self.progress.step + (self._open is not None)

    def train_step(self, batches: Sequence[ClipBatch], stop: StopSignal) -> int | None:
        """Take one optimizer step on the micro-batches of this rank.

        If the loss or the gradient is not finite, or the loss exceeds `train.max_loss`, the device
        skips the update. The host learns of it when it reads the step's statistics: at once on a
        CPU, after the last step of an epoch and at a signal to a single process, else before it
        updates the weights again.

        Returns:
            The exit code if the run stops here, else None.
        """
        step = self._next_step
        self.unreadable_watch.observe(pair for batch in batches for pair in batch.substituted)
        checkpointing = getattr(self.state.model, "checkpointing", False)
        with explain_out_of_memory(self.train, step=step, checkpointing=checkpointing):
            sums = self.forward_backward(step, batches)
        code = self._close_step(stop)
        if code is not None:
            return code
        with explain_out_of_memory(self.train, step=step, checkpointing=checkpointing):
            self._open = self._update(step, batches, sums, stop)
        ends = (step + 1) % self.run.steps_per_epoch == 0 or step + 1 == self.last_step
        # a stopping run must not wait for another batch; on several ranks, all read at one point
        ends |= bool(stop.received) and self.run.world.size == 1
        return self._close_step(stop) if ends or not self.reads_late else None

    def _close_step(self, stop: StopSignal) -> int | None:
        """Read the statistics of the open step, if there is one, and act on them.

        Return the exit code if the run stops here, else None.
        """
        if self._open is None:
            return None
        stats, rows, self._open = self._open.stats.read(), self._open.rows, None
        if not stats.is_finite:
            folder = self.store.folder.parent if self.store else None
            report_non_finite(self.progress.step, stats, rows, self.run.world, folder)
            return NON_FINITE
        if self.state.ema:
            self.state.ema.update(self.state.model)
        self.progress.step += 1
        self.progress.broken += stats.unreadable
        return self.end_step(stats, stop)

    def end_step(self, stats: StepStats, stop: StopSignal) -> int | None:
        """Log, validate and save where due.

        Returns:
            The exit code if the run stops here, else None.
        """
        epoch, step_of_epoch = divmod(self.progress.step, self.run.steps_per_epoch)
        epoch_ends = step_of_epoch == 0
        self.meter.add(stats.averages, stats.clips)
        if self.progress.step % self.train.log_every == 0 or epoch_ends:
            self._log(stats)
        is_best, signal, save = False, stats.signal, stats.save_due
        last = self.progress.step == self.total_steps
        if epoch_ends and self.evaluator and (epoch % self.train.eval_every == 0 or last):
            save = True
            is_best = self._validate(self.evaluator, epoch)
            # a signal that came during the validation stops the run before the next step
            signal = reduce_signal(stop.received or 0, self.run.world)
        over_limit = self._exceeds_unreadable_limit()
        milestone = self._milestone(epoch) if epoch_ends else None
        save |= epoch_ends and (epoch % self.train.save_every == 0 or last or bool(milestone))
        if save or signal or over_limit:
            self._save(is_best, milestone=milestone)
        if over_limit:
            report_unreadable(
                self.progress.broken, self._epochs_begun(), self.run.num_videos, self.run.max_broken
            )
            return UNREADABLE_LIMIT
        if signal:
            logger.info(
                "stopped by a signal after step %d; run the same command again to resume",
                self.progress.step,
            )
            return 128 + signal
        if epoch_ends and should_stop(self.progress, self.train):
            log_stop(self.progress)
            return DONE
        return None

    def lr_at(self, step: int) -> float:
        """Return the learning rate at `step`."""
        optim = self.optim
        return lr_at(
            step,
            total_steps=self.total_steps,
            warmup_steps=round(optim.warmup_epochs * self.run.steps_per_epoch),
            peak=optim.lr,
            start=optim.warmup_lr,
            end=optim.min_lr,
            cosine_after_warmup=optim.cosine_after_warmup,
        )

    def _update(
        self,
        step: int,
        batches: Sequence[ClipBatch],
        sums: Sums,
        stop: StopSignal,
    ) -> OpenStep:
        """Update the weights, unless the device finds that loss or gradient are not finite."""
        lr = self.lr_at(step)
        set_lr(self.state.optimizer, lr)
        self.state.scaler.unscale_(self.state.optimizer)
        stats, skip = reduce_step_stats(
            sums,
            lr=lr,
            grad_norm=clip_gradients(self.state.model, self.optim.clip_grad),
            loss_scale=self.state.loss_scale,
            max_loss=self.train.max_loss,
            unreadable=sum(len(batch.substituted) for batch in batches),
            signal=stop.received or 0,
            save_due=self.timer.minutes_since_save() > self.train.save_minutes,
            world=self.run.world,
        )
        self.state.update_weights(skip)
        return OpenStep(stats, [batch.row for batch in batches])

    def _log(self, stats: StepStats) -> None:
        if self.log is None:
            return
        step, numbers = self.progress.step, self.meter.summarise()
        loss = stats.averages["loss"]
        self.log.write(
            step - 1,
            "train",
            **numbers,
            loss_hex=loss.hex(),
            lr=stats.lr,
            grad_norm=stats.grad_norm,
            broken_videos=self.progress.broken,
        )
        line = progress_line(
            step,
            total_steps=self.total_steps,
            steps_per_epoch=self.run.steps_per_epoch,
            numbers=numbers,
            lr=stats.lr,
            time_left=self.timer.time_left(step),
        )
        logger.info(line)
        self.loader_watch.observe(numbers["data_wait_share"])
        self.collapse_watch.observe(step, numbers)

    def _validate(self, evaluator: Evaluator, epoch: int) -> bool:
        """Validate the model and return whether it is the best so far."""
        state, progress = self.state, self.progress
        with self.meter.paused(), unsharded_model(state.eval_model, state.gather_into) as model:
            numbers = check_numbers(evaluator.score, evaluator, evaluator(model))
        state.model.train()
        score = numbers[evaluator.score] * (1 if evaluator.higher_is_better else -1)
        is_best = record_score(progress, self.train, score, numbers)
        if self.log:
            self.log.write(progress.step - 1, "val", **numbers)
            kind = "best so far" if score == progress.best else "as good as the best"
            suffix = f"  ({kind})" if is_best else ""
            logger.info("epoch %d validation: %s%s", epoch, format_numbers(numbers), suffix)
            warn_of_left_out(numbers)
        return is_best

    def _save(self, is_best: bool, *, milestone: str | None) -> None:
        if self.store is None:
            return
        with self.meter.paused():
            self.store.save(
                self.progress.step,
                self.state.weights(),
                self.state.training_state(),
                {**self.run.meta, **self.state.meta()},
                best=is_best,
                milestone=milestone,
            )
        self.timer.mark_saved()

    def _milestone(self, epoch: int) -> str | None:
        every = self.train.keep_every
        return f"pass_{epoch:05d}" if every and epoch % every == 0 else None

    def _epochs_begun(self) -> int:
        return math.ceil(self.progress.step / self.run.steps_per_epoch)

    def _exceeds_unreadable_limit(self) -> bool:
        # of full epochs: all unreadable videos may come early in one
        limit = self.run.max_broken * self.run.num_videos * self._epochs_begun()
        return self.progress.broken > limit
