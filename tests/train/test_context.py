"""A step's random numbers depend on the seed, the step and the position in the global batch."""

from __future__ import annotations

import torch
from torch import Tensor

from hiera_video.train.context import StepContext


def context(position: Tensor, *, step: int = 3, seed: int = 7) -> StepContext:
    return StepContext(seed, step, position, depth=4, device=torch.device("cpu"))


def test_drop_path_draws_do_not_depend_on_how_the_batch_is_split() -> None:
    full = context(torch.arange(8)).path_draws
    assert full.shape == (8, 4, 2) and full.unique().numel() == 64
    assert torch.equal(context(torch.tensor([6, 1])).path_draws, full[[6, 1]])
    assert not torch.equal(context(torch.arange(8), step=4).path_draws, full)
    assert not torch.equal(context(torch.arange(8), seed=8).path_draws, full)


def test_purposes_are_independent_and_the_batch_generator_ignores_the_position() -> None:
    first, other = context(torch.tensor([0])), context(torch.tensor([5]))
    draws = [torch.rand((), generator=first.generators(name)[0]) for name in ("keep", "arrow")]
    assert draws[0] != draws[1]
    assert first.batch_generator("mix").random() == other.batch_generator("mix").random()
