"""Trainings of a linear model, in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hiera_video.data.loading.loader import ClipBatch
from hiera_video.runtime.distributed import SINGLE_PROCESS
from hiera_video.runtime.log import MetricLog
from hiera_video.runtime.signals import StopSignal
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.train.config import OptimConfig, TrainConfig
from hiera_video.train.context import StepContext
from hiera_video.train.state import AveragedWeights, TrainState
from hiera_video.train.tasks import Task, TaskOutput
from hiera_video.train.trainer import RunInfo, Trainer


class SquaredOutput:
    """A loss that becomes NaN (or whose gradient becomes infinite) at one step."""

    def __init__(self, bad_step: int | None = None, kind: str = "loss") -> None:
        self.bad_step, self.kind = bad_step, kind

    def __call__(self, model: nn.Module, batch: ClipBatch, context: StepContext) -> TaskOutput:
        loss = model(batch.clips).square().mean()
        if context.step == self.bad_step and self.kind == "loss":
            loss = loss * float("nan")
        elif context.step == self.bad_step:
            loss = loss + (model.weight.sum() * 0).sqrt()  # type: ignore[operator]
        return TaskOutput(loss)


def batches() -> Iterator[list[ClipBatch]]:
    """Yield the same two clips of manifest rows 40 and 41 for every step."""
    ids = torch.arange(2)
    clips = torch.ones(2, 3)
    batch = ClipBatch(clips=clips, labels=ids, row=ids + 40, view=ids, position=ids, substituted=())
    while True:
        yield [batch]


def train(
    folder: Path,
    task: Task,
    *,
    loader: Iterator[list[ClipBatch]] | None = None,
    state: TrainState | None = None,
    optim: OptimConfig | None = None,
    stop: StopSignal | None = None,
    max_broken: float = 0.05,
    trainer: dict[str, Any] | None = None,
    **settings: Any,
) -> tuple[int, nn.Linear, list[torch.Tensor]]:
    """Train for three epochs of two steps, on a list of four videos.

    Returns the exit code, the model, and its weights before each step.
    """
    folder.mkdir(exist_ok=True)
    state = state or linear_state()
    model = state.model
    assert isinstance(model, nn.Linear)
    history: list[torch.Tensor] = []
    model.register_forward_pre_hook(
        lambda module, inputs: history.append(model.weight.detach().clone())
    )
    log = MetricLog(folder, first_step=0)
    run = RunInfo(
        world=SINGLE_PROCESS, steps_per_epoch=2, num_videos=4, max_broken=max_broken, seed=0
    )
    code = Trainer(
        state,
        task,
        optim=optim or OptimConfig(lr=0.1),
        train=TrainConfig(**{"epochs": 3, "batch_size": 2, "log_every": 1, **settings}),
        run=run,
        store=CheckpointStore(folder / "checkpoints", keep=2),
        log=log,
        **(trainer or {}),
    ).fit(loader or batches(), stop or StopSignal())
    log.close()
    return code, model, history


def linear_state(*, ema: float | None = None, fp16: bool = False) -> TrainState:
    """Return three inputs, one output and plain SGD."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD([{"params": list(model.parameters()), "lr_scale": 1.0}], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", enabled=fp16)
    average = None if ema is None else AveragedWeights(model, ema)
    return TrainState(model=model, optimizer=optimizer, scaler=scaler, ema=average)


def latest_step(folder: Path) -> int:
    found = CheckpointStore(folder / "checkpoints", keep=2).latest()
    assert found is not None
    return int(found.meta["step"])
