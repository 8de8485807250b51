"""Forward and backward pass of a training step, one micro-batch after the other."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

from torch import Tensor, nn

from hiera_video.data.loading.loader import ClipBatch
from hiera_video.errors import ConfigError
from hiera_video.runtime.cuda_graphs import GraphedBackward
from hiera_video.runtime.distributed import World
from hiera_video.runtime.precision import autocast
from hiera_video.runtime.seed import seed_modules
from hiera_video.train.config import TrainConfig
from hiera_video.train.context import StepContext
from hiera_video.train.parallel import no_sync, wrap_ddp
from hiera_video.train.state import TrainState
from hiera_video.train.tasks import GraphTask, Task, TaskOutput

Sums = dict[str, tuple[Tensor, int]]
"""Metric name → (sum, count)."""


class ForwardBackward:
    """Computes the gradient of a step's mean loss over its equally large micro-batches.

    Args:
        state: The model, which receives the gradients, and the scale of the loss.
        task: Turns a micro-batch into a loss.
        train: Precision and settings of DDP and CUDA graphs.
        world: The ranks.
        seed: The run's seed.

    Raises:
        ConfigError: `train.cuda_graph` is set for several processes, or for a task without the
            methods of `GraphTask`.
    """

    def __init__(
        self, state: TrainState, task: Task, train: TrainConfig, world: World, seed: int
    ) -> None:
        if train.cuda_graph:
            _require_graph(task, world)
        self.state, self.task, self.train, self.world, self.seed = state, task, train, world, seed
        self.model: nn.Module = wrap_ddp(state.model, world, static_graph=train.static_graph)
        self._graph: GraphedBackward | None = None

    def __call__(self, step: int, batches: Sequence[ClipBatch]) -> Sums:
        """Add the gradient of `step` to the model's; return the sum and count of each metric."""
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
        clips = len(batch.row)
        if self.train.cuda_graph and isinstance(self.task, GraphTask):
            # every step of a run has as many micro-batches, of as many clips
            function = partial(self._graphed, self.task, clips, parts)
            self._graph = self._graph or GraphedBackward(function, self.model.parameters())
            logs: Sums = self._graph(*self.task.inputs(batch, context))
            return logs
        with autocast(self.train.precision, self.world.device):
            output = self.task(self.model, batch, context)
        return self._backward(output, clips, parts)

    def _graphed(self, task: GraphTask, clips: int, parts: int, *inputs: Tensor) -> Sums:
        with autocast(self.train.precision, self.world.device):
            output = task.output(self.model, *inputs)
        return self._backward(output, clips, parts)

    def _backward(self, output: TaskOutput, clips: int, parts: int) -> Sums:
        loss = self.state.scaler.scale(output.loss / parts)
        loss.backward()  # type: ignore[no-untyped-call]
        return {"loss": (output.loss.detach() * clips, clips), **output.logs}

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


def _require_graph(task: Task, world: World) -> None:
    if world.size > 1:
        raise ConfigError(
            f"train.cuda_graph=true: a graph holds the step of one process, and this run has "
            f"{world.size}; set train.cuda_graph=false"
        )
    if not isinstance(task, GraphTask):
        raise ConfigError(
            f"train.cuda_graph=true: {type(task).__name__} lacks the methods of "
            "hiera_video.train.tasks.GraphTask; add them, or set train.cuda_graph=false"
        )
