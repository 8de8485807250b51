"""Forward and backward pass of a training step, one micro-batch after the other."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from hiera_video.data.loading.loader import ClipBatch
from hiera_video.errors import ConfigError
from hiera_video.runtime.cuda_graphs import CaptureError, GraphedBackward
from hiera_video.runtime.distributed import World
from hiera_video.runtime.precision import autocast
from hiera_video.runtime.seed import seed_modules
from hiera_video.train.config import TrainConfig
from hiera_video.train.context import StepContext
from hiera_video.train.parallel import no_sync, wrap_ddp
from hiera_video.train.state import TrainState
from hiera_video.train.tasks import Pretrain, Task, TaskOutput
from hiera_video.utils.checks import require

Sums = dict[str, tuple[Tensor, int]]
"""Metric name → (sum, count)."""


class ForwardBackward:
    """Computes the gradient of a step's mean loss over its equally large micro-batches.

    Args:
        state: The model, which receives the gradients, and the scale of the loss.
        task: Turns a micro-batch into a loss.
        train: Accumulation, precision, and settings of DDP and CUDA graphs.
        world: The ranks.
        seed: The run's seed.

    Raises:
        ConfigError: `train.cuda_graph` is set for several GPUs, or another task than `Pretrain`.
    """

    def __init__(
        self, state: TrainState, task: Task, train: TrainConfig, world: World, seed: int
    ) -> None:
        if train.cuda_graph:
            _require_graph(task, world)
        self.state, self.task, self.train, self.world, self.seed = state, task, train, world, seed
        self.model: nn.Module = wrap_ddp(state.model, world, static_graph=train.static_graph)
        self.graph: GraphedBackward | None = None
        if train.cuda_graph and isinstance(task, Pretrain):
            function = partial(_pretrain_pass, task, self.model, state.scaler, train, world.device)
            self.graph = GraphedBackward(function, self.model.parameters())

    def __call__(self, step: int, batches: Sequence[ClipBatch]) -> Sums:
        """Add the gradient of `step` to the model's; return the sum and count of each metric.

        Raises:
            ConfigError: The pass cannot be captured in a CUDA graph.
        """
        self._seed_dropout(step)
        sums: Sums = {}
        for number, batch in enumerate(batches, start=1):
            batch = batch.to(self.world.device)
            # gradients are synchronised once, by the last micro-batch
            with no_sync(self.model) if number < len(batches) else nullcontext():
                logs = self._run(batch, self._context(step, batch), len(batches))
            for name, (value, count) in logs.items():
                before = sums.get(name, (0.0, 0))
                sums[name] = (before[0] + value.double(), before[1] + count)
        return sums

    def _run(self, batch: ClipBatch, context: StepContext, parts: int) -> Sums:
        """Run one of `parts` micro-batches."""
        if self.graph is not None and isinstance(self.task, Pretrain):
            assert parts == self.train.accumulate
            try:
                logs: Sums = self.graph(*self.task.inputs(batch, context))
            except CaptureError as error:
                raise ConfigError(
                    f"train.cuda_graph=true: the capture failed: {error}; set "
                    "train.cuda_graph=false"
                ) from error
            return logs
        with autocast(self.train.precision, self.world.device):
            output = self.task(self.model, batch, context)
        require(
            isinstance(output, TaskOutput),
            f"{type(self.task).__name__}: returned {type(output).__name__}; a task must return "
            "TaskOutput(loss, logs)",
        )
        return _backward(output, self.state.scaler, len(batch.row), parts)

    def _seed_dropout(self, step: int) -> None:
        """Seed torch's default generator, after the step's batches are loaded.

        A loader that starts draws from the same generator, in a resumed run at another step.
        """
        generator = random.Random(f"dropout/{self.seed}/{step}/{self.world.rank}")
        seed_modules(generator.getrandbits(63), self.world.device)

    def _context(self, step: int, batch: ClipBatch) -> StepContext:
        return StepContext(
            seed=self.seed,
            step=step,
            position=batch.position,
            depth=len(getattr(self.state.model, "blocks", ())),
            device=self.world.device,
        )


def _pretrain_pass(
    task: Pretrain,
    model: nn.Module,
    scaler: torch.amp.GradScaler,
    train: TrainConfig,
    device: torch.device,
    *inputs: Tensor,
) -> Sums:
    with autocast(train.precision, device):
        output = task.output(model, *inputs)
    return _backward(output, scaler, len(inputs[0]), train.accumulate)


def _backward(output: TaskOutput, scaler: torch.amp.GradScaler, clips: int, parts: int) -> Sums:
    loss = scaler.scale(output.loss / parts)
    loss.backward()  # type: ignore[no-untyped-call]
    return {"loss": (output.loss.detach() * clips, clips), **output.logs}


def _require_graph(task: Task, world: World) -> None:
    if world.size > 1 and world.device.type == "cuda":
        raise ConfigError(
            f"train.cuda_graph=true: needs a single GPU, and this run has {world.size}; set "
            "train.cuda_graph=false"
        )
    if not isinstance(task, Pretrain) or type(task).__call__ is not Pretrain.__call__:
        raise ConfigError(
            f"train.cuda_graph=true: needs the built-in task Pretrain, and this is "
            f"{type(task).__name__}; set train.cuda_graph=false"
        )
