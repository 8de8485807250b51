"""The training loop, for every task, model and number of devices.

A training step from top to bottom: `Trainer.fit` → `train_step` → `end_step`.
"""

from __future__ import annotations

import json
import logging
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from hiera_video.data.loading.loader import ClipBatch
from hiera_video.runtime.distributed import World
from hiera_video.runtime.log import MetricLog
from hiera_video.runtime.precision import autocast
from hiera_video.runtime.seed import seed_modules
from hiera_video.runtime.signals import StopSignal
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.train.config import OptimConfig, TrainConfig
from hiera_video.train.context import StepContext
from hiera_video.train.devices import explain_out_of_memory
from hiera_video.train.meter import Clock, Meter, RunTimer, format_numbers, progress_line
from hiera_video.train.optim import clip_gradients, set_lr
from hiera_video.train.parallel import no_sync, unsharded_model, wrap_ddp
from hiera_video.train.schedule import lr_at
from hiera_video.train.state import TrainState
from hiera_video.train.stats import StepStats, reduce_signal, reduce_step_stats
from hiera_video.train.tasks import Task
from hiera_video.train.watch import LoaderWatch, UnreadableWatch

logger = logging.getLogger(__name__)
DONE, UNREADABLE_LIMIT, NON_FINITE = 0, 3, 4
MIN_SCALE = 1.0


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
        self.state, self.progress, self.task = state, state.progress, task
        self.optim, self.train, self.run = optim, train, run
        self.evaluator, self.store, self.log = evaluator, store, log
        self.total_steps = train.epochs * run.steps_per_epoch
        first = self.progress.step
        self.last_step = min(self.total_steps, first + (max_steps or self.total_steps))
        self.model = wrap_ddp(state.model, run.world, static_graph=train.static_graph)
        self.meter = Meter(run.world, run.flops_per_clip, clock)
        self.timer = RunTimer(first, self.total_steps, clock)
        self.loader_watch, self.unreadable_watch = LoaderWatch(), UnreadableWatch()

    def fit(self, loader: Iterator[Sequence[ClipBatch]], stop: StopSignal) -> int:
        """Train until the last step or until something stops the run.

        Args:
            loader: Yields this rank's micro-batches of one optimizer step after the other.
            stop: Signals that end the run after the current step.

        Returns:
            The exit code: 0 done; 3 too many unreadable videos; 4 non-finite loss or gradient, with
            the weights as before that step; 128 + n after signal n. In all cases but 4 the last
            step has a checkpoint.

        Raises:
            DeviceMemoryError: A step ran out of device memory.
        """
        self.state.model.train()
        while self.progress.step < self.last_step:
            with self.meter.waiting():
                batches = next(loader)
            checkpointing = getattr(self.state.model, "checkpointing", False)
            with explain_out_of_memory(
                self.train, step=self.progress.step, checkpointing=checkpointing
            ):
                stats = self.train_step(batches, stop)
            if stats is None:
                return NON_FINITE
            code = self.end_step(stats, stop)
            if code is not None:
                return code
        return DONE

    def train_step(self, batches: Sequence[ClipBatch], stop: StopSignal) -> StepStats | None:
        """Take one optimizer step on the micro-batches of this rank.

        Returns:
            The step's statistics over all ranks. None if the loss or the gradient is not finite, or
            the loss exceeds `train.max_loss`; the weights are then unchanged.
        """
        state, step = self.state, self.progress.step
        lr = self.lr_at(step)
        set_lr(state.optimizer, lr)
        substituted = [pair for batch in batches for pair in batch.substituted]
        self.unreadable_watch.observe(substituted)
        self._seed_dropout(step)
        sums = self._forward_backward(batches)
        state.scaler.unscale_(state.optimizer)
        grad_norm = clip_gradients(state.model, self.optim.clip_grad)
        stats = reduce_step_stats(
            sums,
            lr=lr,
            grad_norm=grad_norm,
            unreadable=len(substituted),
            signal=stop.received or 0,
            save_due=self.timer.minutes_since_save() > self.train.save_minutes,
            world=self.run.world,
        )
        if not self._is_finite(stats):
            self._report_non_finite(stats, batches)
            return None
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad()
        if state.ema:
            state.ema.update_parameters(state.model)
        self.progress.step += 1
        self.progress.broken += stats.unreadable
        return stats

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
        is_best, signal = False, stats.signal
        due = epoch % self.train.eval_every == 0 or self.progress.step == self.total_steps
        if self.evaluator and epoch_ends and due:
            is_best = self._validate(self.evaluator, epoch)
            # a signal that came during the validation stops the run before the next step
            signal = reduce_signal(stop.received or 0, self.run.world)
        over_limit = self._exceeds_unreadable_limit()
        if epoch_ends or stats.save_due or signal or over_limit:
            self._save(is_best, milestone=self._milestone(epoch) if epoch_ends else None)
        if over_limit:
            self._report_unreadable()
            return UNREADABLE_LIMIT
        if signal:
            logger.info(
                "stopped by a signal after step %d; run the same command again to resume",
                self.progress.step,
            )
            return 128 + signal
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

    def _seed_dropout(self, step: int) -> None:
        """Seed torch's default generator, after the step's batches are loaded.

        A loader that starts draws from the same generator, in a resumed run at another step.
        """
        generator = random.Random(f"dropout/{self.run.seed}/{step}/{self.run.world.rank}")
        seed_modules(generator.getrandbits(63), self.run.world.device)

    def _forward_backward(self, batches: Sequence[ClipBatch]) -> dict[str, tuple[Tensor, int]]:
        """Accumulate the gradient of the mean loss over equally large micro-batches.

        Return the sum and the count of each metric.
        """
        scaler, device = self.state.scaler, self.run.world.device
        sums: dict[str, tuple[Tensor, int]] = {}
        for number, batch in enumerate(batches, start=1):
            batch = batch.to(device)
            # gradients are synchronised once, by the last micro-batch
            with no_sync(self.model) if number < len(batches) else nullcontext():
                with autocast(self.train.precision, device):
                    output = self.task(self.model, batch, self._context(batch))
                scaler.scale(output.loss / len(batches)).backward()  # type: ignore[no-untyped-call]
            clips = len(batch.row)
            logs = {"loss": (output.loss.detach() * clips, clips), **output.logs}
            for name, (value, count) in logs.items():
                before = sums.get(name, (0.0, 0))
                sums[name] = (before[0] + value.double(), before[1] + count)
        return sums

    def _context(self, batch: ClipBatch) -> StepContext:
        return StepContext(
            seed=self.run.seed,
            step=self.progress.step,
            position=batch.position,
            depth=len(getattr(self.state.model, "blocks", ())),
            device=self.run.world.device,
        )

    def _is_finite(self, stats: StepStats) -> bool:
        # a scaler skips steps with infinite gradients and halves its scale, which starts at 65536
        scaler = self.state.scaler
        skips = scaler.is_enabled() and scaler.get_scale() > MIN_SCALE
        max_loss = self.train.max_loss or sys.float_info.max
        return stats.averages["loss"] <= max_loss and (math.isfinite(stats.grad_norm) or skips)

    def _report_non_finite(self, stats: StepStats, batches: Sequence[ClipBatch]) -> None:
        """Log the step and write the manifest rows of its videos to `non_finite.json`."""
        step, loss, norm = self.progress.step, stats.averages["loss"], stats.grad_norm
        rows = self.run.world.all_gather([batch.row.tolist() for batch in batches])
        if not self.run.world.is_main:
            return
        where = str(rows)
        if self.store:
            path = self.store.folder.parent / "non_finite.json"
            facts = {"step": step, "loss": str(loss), "grad_norm": str(norm), "rows_by_rank": rows}
            path.write_text(json.dumps(facts))
            where = f"in {path}"
        logger.error(
            "step %d: loss %s, gradient norm %s: stopped before the weights changed; the manifest "
            "rows of the step are %s; lower optim.lr or set train.precision=fp32",
            step,
            loss,
            norm,
            where,
        )

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

    def _validate(self, evaluator: Evaluator, epoch: int) -> bool:
        """Validate the model and return whether it is the best so far."""
        state, progress = self.state, self.progress
        with self.meter.paused(), unsharded_model(state.eval_model, state.gather_into) as model:
            numbers = evaluator(model)
        state.model.train()
        score = numbers[evaluator.score] * (1 if evaluator.higher_is_better else -1)
        is_best = math.isfinite(score) and (progress.best is None or score > progress.best)
        progress.best = score if is_best else progress.best
        if self.log:
            self.log.write(progress.step - 1, "val", **numbers)
            suffix = "  (best so far)" if is_best else ""
            logger.info("epoch %d validation: %s%s", epoch, format_numbers(numbers), suffix)
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

    def _report_unreadable(self) -> None:
        logger.error(
            "%d unreadable samples in %d epochs of %d videos: more than data.max_broken=%g; "
            "list the unreadable videos with tools/check_data.py, repair them or raise "
            "data.max_broken, then run the same command again to resume",
            self.progress.broken,
            self._epochs_begun(),
            self.run.num_videos,
            self.run.max_broken,
        )
