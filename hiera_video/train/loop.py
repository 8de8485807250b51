"""The one training loop: every task, model and number of devices goes through `fit`, from top to bottom.

What survives a restart is `TrainState`: all random numbers are functions of (seed, step, position), so nothing else has
to be remembered.
"""

from __future__ import annotations

import json
import logging
import math
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hiera_video.data.loading.loader import ClipBatch
from hiera_video.runtime.distributed import World
from hiera_video.runtime.log import MetricLog
from hiera_video.runtime.precision import autocast
from hiera_video.runtime.seed import seed_modules
from hiera_video.runtime.signals import StopSignal
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.train.config import OptimConfig, TrainConfig
from hiera_video.train.devices import explain_out_of_memory
from hiera_video.train.meter import (
    BrokenWatch,
    Clock,
    LoaderWatch,
    Meter,
    agree,
    progress_line,
    reduce_signal,
    show,
)
from hiera_video.train.optim import clip_gradients, set_lr
from hiera_video.train.parallel import no_sync, whole_model, wrap
from hiera_video.train.schedule import lr_at
from hiera_video.train.state import TrainState
from hiera_video.train.tasks import Task

logger = logging.getLogger(__name__)
DONE, BROKEN_LIMIT, NON_FINITE = 0, 3, 4
SMALLEST_SCALE = 1.0


class Evaluator(Protocol):
    """Turns a model into numbers. `score` names the one that chooses the best checkpoint."""

    @property
    def score(self) -> str: ...
    @property
    def higher_is_better(self) -> bool: ...

    def __call__(self, model: nn.Module) -> dict[str, float]: ...


@dataclass(frozen=True, kw_only=True)
class Run:
    """The fixed surroundings of `fit`."""

    folder: Path
    world: World
    store: CheckpointStore
    log: MetricLog | None
    """None on ranks other than the first."""
    steps_per_epoch: int
    num_videos: int
    """Of the list; `max_broken` is a share of them, in each pass."""
    max_broken: float
    seed: int
    flops_per_clip: float
    """Of forward and backward, as the model's multiply-accumulates × 2 × 3; for the log's MFU."""
    meta: dict[str, Any]
    """Written into every checkpoint: model, class names."""


def fit(
    state: TrainState,
    task: Task,
    batches: Iterator[Sequence[ClipBatch]],
    evaluator: Evaluator | None,
    *,
    optim: OptimConfig,
    train: TrainConfig,
    run: Run,
    stop: StopSignal,
) -> int:
    """Train from `state.progress.step` to the end. `batches` yields one optimizer step's micro-batches of this rank.

    Returns the exit code: 0 done, 3 over the limit of broken videos, 4 after a non-finite loss or gradient (weights as
    before that step), 128 + n after signal n; in all but case 4 a checkpoint of the last step has been written.
    """
    model, optimizer, scaler, progress = state.model, state.optimizer, state.scaler, state.progress
    world, total_steps = run.world, train.epochs * run.steps_per_epoch
    warmup_steps = round(optim.warmup_epochs * run.steps_per_epoch)
    clock, watch, broken = Clock(progress.step, total_steps), LoaderWatch(), BrokenWatch()
    meter = Meter(world, run.flops_per_clip)
    wrapped = wrap(model, world, static_graph=train.static_graph)
    model.train()
    while progress.step < total_steps:
        step = progress.step
        lr = lr_at(
            step,
            total_steps=total_steps,
            warmup_steps=warmup_steps,
            peak=optim.lr,
            start=optim.warmup_lr,
            end=optim.min_lr,
            cosine_after_warmup=optim.cosine_after_warmup,
        )
        set_lr(optimizer, lr)
        with meter.waiting():
            batches_of_step = next(batches)
        substituted = [pair for batch in batches_of_step for pair in batch.substituted]
        broken.look(substituted)
        # after the data: a loader draws from the same generator when it starts, which a resumed run does at another step
        seed_modules(
            random.Random(f"dropout/{run.seed}/{step}/{world.rank}").getrandbits(63), world.device
        )
        with explain_out_of_memory(
            train, step=step, checkpointing=getattr(model, "checkpointing", False)
        ):
            logs = forward_backward(
                wrapped, task, batches_of_step, step, train.precision, scaler, world
            )
        scaler.unscale_(optimizer)
        norm = clip_gradients(model, optim.clip_grad)
        agreed = agree(
            logs,
            broken=len(substituted),
            signal=stop.received or 0,
            save_due=clock.minutes() > train.save_minutes,
            world=world,
        )
        loss = agreed.averages["loss"]
        # a scaler meets infinite gradients by design: it skips the step and halves its scale, from 65536, but not for ever
        skips = scaler.is_enabled() and scaler.get_scale() > SMALLEST_SCALE
        if not loss <= (train.max_loss or sys.float_info.max) or not (math.isfinite(norm) or skips):
            _report_non_finite(step, loss, norm, batches_of_step, run)
            return NON_FINITE
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if state.ema:
            state.ema.update_parameters(model)

        progress.step += 1
        progress.broken += agreed.broken
        meter.add(agreed.averages, agreed.clips)
        epoch, epoch_ends = (
            progress.step // run.steps_per_epoch,
            progress.step % run.steps_per_epoch == 0,
        )
        if run.log and (progress.step % train.log_every == 0 or epoch_ends):
            numbers = meter.take()
            run.log.write(
                step,
                "train",
                **numbers,
                loss_hex=loss.hex(),
                lr=lr,
                grad_norm=norm,
                broken_videos=progress.broken,
            )
            logger.info(
                progress_line(progress.step, total_steps, run.steps_per_epoch, numbers, lr, clock)
            )
            watch.look(numbers["data_wait_share"])
        is_best, signal = False, agreed.signal
        if (
            evaluator
            and epoch_ends
            and (epoch % train.eval_every == 0 or progress.step == total_steps)
        ):
            with meter.paused(), whole_model(state.validated, state.skeleton) as validated:
                numbers = evaluator(validated)
            model.train()
            signal = reduce_signal(
                stop.received or 0, world
            )  # validation takes long: no further step after a signal
            score = (
                numbers[evaluator.score]
                if evaluator.higher_is_better
                else -numbers[evaluator.score]
            )
            is_best = math.isfinite(score) and (progress.best is None or score > progress.best)
            progress.best = score if is_best else progress.best
            if run.log:
                run.log.write(step, "val", **numbers)
                logger.info(
                    "epoch %d validation: %s%s",
                    epoch,
                    show(numbers),
                    "  (best so far)" if is_best else "",
                )
        # of whole passes: each video comes once in one, and broken ones that come early in it are no more than allowed
        passes = math.ceil(progress.step / run.steps_per_epoch)
        limit = run.max_broken * run.num_videos * passes
        if epoch_ends or agreed.save_due or signal or progress.broken > limit:
            meta = {**run.meta, **state.meta()}
            due = epoch_ends and train.keep_every and epoch % train.keep_every == 0
            milestone = f"pass_{epoch:05d}" if due else None
            with meter.paused():
                run.store.save(
                    progress.step,
                    state.weights(),
                    state.rest(),
                    meta,
                    best=is_best,
                    milestone=milestone,
                )
            clock.saved()
        if progress.broken > limit:
            logger.error(
                "a broken video came %d times in %d passes over %d videos, which is over data.max_broken=%g; "
                "tools/check_data.py names the broken ones: mend them, or raise data.max_broken, and the same command goes on",
                progress.broken, passes, run.num_videos, run.max_broken,
            )  # fmt: skip
            return BROKEN_LIMIT
        if signal:
            logger.info(
                "stopped by a signal after step %d; the same command goes on from there",
                progress.step,
            )
            return 128 + signal
    return DONE


def forward_backward(
    model: nn.Module,
    task: Task,
    batches: Sequence[ClipBatch],
    step: int,
    precision: str,
    scaler: torch.amp.GradScaler,
    world: World,
) -> dict[str, tuple[Tensor, int]]:
    """Gradients of the mean loss over this rank's micro-batches, which are equally large. Returns sums and counts."""
    logs: dict[str, tuple[Tensor, int]] = {}
    for number, batch in enumerate(batches, start=1):
        batch = batch.to(world.device)
        with (
            no_sync(model) if number < len(batches) else nullcontext()
        ):  # only the last part exchanges gradients
            with autocast(precision, world.device):
                output = task(model, batch, step)
            scaler.scale(output.loss / len(batches)).backward()  # type: ignore[no-untyped-call]
        clips = len(batch.row)
        for name, (value, count) in {
            "loss": (output.loss.detach() * clips, clips),
            **output.logs,
        }.items():
            before = logs.get(name, (0.0, 0))
            logs[name] = (before[0] + value.double(), before[1] + count)
    return logs


def _report_non_finite(
    step: int, loss: float, norm: float, batches: Sequence[ClipBatch], run: Run
) -> None:
    """Say which videos were in the step, on every rank, before the weights could be touched."""
    rows = run.world.all_gather([batch.row.tolist() for batch in batches])
    if run.world.is_main:
        path = run.folder / "non_finite.json"
        path.write_text(
            json.dumps(
                {"step": step, "loss": str(loss), "grad_norm": str(norm), "rows_by_rank": rows}
            )
        )
        logger.error("step %d: loss %s, gradient norm %s: stopped before the weights changed; the manifest rows of the "
                     "step are in %s; lower optim.lr or set train.precision=fp32", step, loss, norm, path)  # fmt: skip
