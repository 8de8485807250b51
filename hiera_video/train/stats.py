"""Statistics of a training step, reduced across ranks, and the check that they are finite."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hiera_video.runtime.distributed import World
from hiera_video.runtime.signals import STOP_SIGNALS
from hiera_video.runtime.transfer import copy_to_device, copy_to_host

MIN_SCALE = 1.0


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
    is_finite: bool
    """False if the step had to be refused: a loss or gradient is not finite, or the loss exceeds
    `train.max_loss`."""


class QueuedStats:
    """Statistics of a step whose numbers may still be on their way to the host.

    Args:
        names: Names of the metrics.
        lr: Learning rate of the step.
        numbers: Unreadable videos, due saves, signals, the count of each metric, the sum of each
            metric, overflows, the gradient norm, and 1 if the step is refused.
    """

    def __init__(self, names: list[str], lr: float, numbers: Tensor) -> None:
        self._names, self._lr, self._copy = names, lr, copy_to_host(numbers)

    def read(self) -> StepStats:
        """Return the statistics, after waiting for the device where it has not computed them."""
        unreadable, due, *rest = self._copy.result().tolist()
        signals, rest = rest[: len(STOP_SIGNALS)], rest[len(STOP_SIGNALS) :]
        counts, rest = rest[: len(self._names)], rest[len(self._names) :]
        *sums, _, grad_norm, refused = rest
        averages = zip(self._names, sums, counts, strict=True)
        return StepStats(
            lr=self._lr,
            grad_norm=grad_norm,
            averages={name: total / count for name, total, count in averages},
            clips=int(counts[0]),
            unreadable=int(unreadable),
            signal=_first(signals),
            save_due=due > 0,
            is_finite=not refused,
        )


def reduce_step_stats(
    sums: dict[str, tuple[Tensor, int]],
    *,
    lr: float,
    grad_norm: Tensor,
    loss_scale: Tensor | None,
    max_loss: float | None,
    unreadable: int,
    signal: int,
    save_due: bool,
    world: World,
) -> tuple[QueuedStats, Tensor]:
    """Combine the statistics of all ranks in a single all-reduce, and check them on the device.

    Args:
        sums: This rank's metric sums: name → (sum, count). The first entry is the loss and counts
            clips.
        lr: Learning rate, the same on every rank.
        grad_norm: Gradient norm, the same on every rank.
        loss_scale: Scale of fp16 training, with which an infinite gradient only skips the update as
            long as the scale can be halved; otherwise None.
        max_loss: Largest loss that is not refused; None for any finite one.
        unreadable: Videos that this rank substituted.
        signal: Signal that this rank received, or 0.
        save_due: This rank's last checkpoint is too old.
        world: The ranks.

    Returns:
        The statistics; and on the device, 1.0 if the optimizer must skip its update, else 0.0.
    """
    on_host = [unreadable, save_due, *_one_hot(signal), *(count for _, count in sums.values())]
    on_device = [value for value, _ in sums.values()] + [~torch.isfinite(grad_norm)]
    host_numbers = copy_to_device(torch.tensor(on_host, dtype=torch.float64), world.device)
    numbers = world.all_reduce(torch.cat([host_numbers, _stack(on_device, world.device)]))
    mean_loss = numbers[len(on_host)] / numbers[2 + len(STOP_SIGNALS)]
    overflows = numbers[-1] > 0
    # a scaler skips updates with infinite gradients and halves its scale, which starts at 65536
    fatal = overflows if loss_scale is None else overflows & (loss_scale <= MIN_SCALE)
    refused = fatal | ~torch.isfinite(mean_loss)
    if max_loss is not None:
        refused = refused | (mean_loss > max_loss)
    numbers = torch.cat([numbers, _stack([grad_norm, refused], world.device)])
    return QueuedStats(list(sums), lr, numbers), (refused | overflows).float()


def reduce_signal(signal: int, world: World) -> int:
    """Return the signal that a rank received, or 0; call this after work longer than a step."""
    flags = torch.tensor(_one_hot(signal), dtype=torch.float64, device=world.device)
    return _first(world.all_reduce(flags).tolist())


def _stack(numbers: list[Tensor], device: torch.device) -> Tensor:
    return torch.stack([copy_to_device(number, device).double() for number in numbers])


def _one_hot(signal: int) -> list[float]:
    return [float(signal == number) for number in STOP_SIGNALS]


def _first(counts: list[float]) -> int:
    return next((int(number) for number, count in zip(STOP_SIGNALS, counts) if count), 0)
