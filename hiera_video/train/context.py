"""Random numbers of a training step, derived from the seed, the step and each clip's position."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from hiera_video.runtime.transfer import copy_to_device


@dataclass(frozen=True)
class StepContext:
    """Position in the run, and the source of random numbers for one micro-batch.

    Every number depends on the seed, the step and a clip's position in the step's global batch
    alone. Neither the number of processes, nor gradient accumulation, nor a restart changes it.
    """

    seed: int
    """The run's seed."""
    step: int
    """Optimizer step, from 0."""
    position: Tensor
    """int64 [B] on the CPU: position of each clip in the step's global batch."""
    depth: int
    """Transformer blocks of the model, for `path_draws`."""
    device: torch.device
    """Device of the model."""

    def generators(self, purpose: str) -> list[torch.Generator]:
        """Return one CPU generator for each clip.

        Args:
            purpose: Name of what is drawn; different names give independent numbers.
        """
        seeds = [
            random.Random(f"{purpose}/{self.seed}/{self.step}/{index}").getrandbits(63)
            for index in self.position.tolist()
        ]
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    def batch_generator(self, purpose: str) -> random.Random:
        """Return a generator that is the same for all micro-batches and ranks of the step."""
        return random.Random(f"{purpose}/{self.seed}/{self.step}")

    @property
    def path_draws(self) -> Tensor:
        """Uniform numbers [B, depth, 2] on the model's device, for the model's drop path."""
        generators = self.generators("drop_path")
        draws = [torch.rand(self.depth, 2, generator=generator) for generator in generators]
        return copy_to_device(torch.stack(draws), self.device)
