"""Statistics of a training step, reduced across ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hiera_video.runtime.distributed import World
from hiera_video.runtime.signals import STOP_SIGNALS


@dataclass(frozen=True, kw_only=True)
class StepStats:
    """One optimizer step, the same on every rank."""

    lr: float
    """Peak learning rate of the step; parameter groups scale it."""
    grad_norm: float
    """Norm of the gradient over all parameters, before clipping."""
    averages: dict[str, float]
    """Mean of each logged metric, `loss` among them."""
    clips: int
    """Clips of the step's global batch."""
    unreadable: int
    """Unreadable videos that were substituted."""
    signal: int
    """Signal that a rank received; 0 if none did."""
    save_due: bool
    """A rank's last checkpoint is older than `train.save_minutes`."""


def reduce_step_stats(
    sums: dict[str, tuple[Tensor, int]],
    *,
    lr: float,
    grad_norm: float,
    unreadable: int,
    signal: int,
    save_due: bool,
    world: World,
) -> StepStats:
    """Combine the statistics of all ranks in a single all-reduce.

    Args:
        sums: This rank's metric sums: name → (sum, count). The first entry counts clips.
        lr: Learning rate, the same on every rank.
        grad_norm: Gradient norm, the same on every rank.
        unreadable: Videos that this rank substituted.
        signal: Signal that this rank received, or 0.
        save_due: This rank's last checkpoint is too old.
        world: The ranks.
    """
    flags = [
        torch.tensor(value, dtype=torch.float64)
        for value in (unreadable, save_due, *_one_hot(signal))
    ]
    numbers = [
        number
        for value, count in sums.values()
        for number in (value.cpu(), torch.tensor(float(count)).double())
    ]
    reduced = world.all_reduce(torch.stack([*flags, *numbers]).to(world.device)).tolist()
    (total_unreadable, due), signals = reduced[:2], reduced[2 : 2 + len(STOP_SIGNALS)]
    values = reduced[2 + len(STOP_SIGNALS) :]
    return StepStats(
        lr=lr,
        grad_norm=grad_norm,
        averages={name: values[2 * i] / values[2 * i + 1] for i, name in enumerate(sums)},
        clips=int(values[1]),
        unreadable=int(total_unreadable),
        signal=_first(signals),
        save_due=due > 0,
    )


def reduce_signal(signal: int, world: World) -> int:
    """Return the signal that a rank received, or 0; call this after work longer than a step."""
    flags = torch.tensor(_one_hot(signal), dtype=torch.float64, device=world.device)
    return _first(world.all_reduce(flags).tolist())


def _one_hot(signal: int) -> list[float]:
    return [float(signal == number) for number in STOP_SIGNALS]


def _first(counts: list[float]) -> int:
    return next((int(number) for number, count in zip(STOP_SIGNALS, counts) if count), 0)
