"""Reduction of a step's statistics across ranks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from hiera_video.runtime.distributed import SINGLE_PROCESS, World
from hiera_video.train.stats import reduce_signal, reduce_step_stats

FIXED: dict[str, Any] = {
    "lr": 0.1,
    "grad_norm": torch.tensor(2.0),
    "loss_scale": None,
    "max_loss": None,
    "save_due": False,
}


class RecordingRank(World):
    """A rank whose contribution to the all-reduce is recorded."""

    def all_reduce(self, values: torch.Tensor) -> torch.Tensor:
        object.__setattr__(self, "sent", values.clone())
        return values


class OneOfTwo(World):
    """A rank of two, the other of which contributes `other`."""

    def __init__(self, other: torch.Tensor) -> None:
        super().__init__(0, 2, torch.device("cpu"))
        object.__setattr__(self, "other", other)

    def all_reduce(self, values: torch.Tensor) -> torch.Tensor:
        return values + self.other  # type: ignore[attr-defined, no-any-return]


def test_averages_are_sums_over_counts() -> None:
    sums = {"loss": (torch.tensor(6.0), 4), "top1": (torch.tensor(1), 2)}
    queued, skip = reduce_step_stats(sums, unreadable=3, signal=15, world=SINGLE_PROCESS, **FIXED)
    stats = queued.read()
    assert stats.averages == {"loss": 1.5, "top1": 0.5}
    assert (stats.clips, stats.unreadable, stats.signal, stats.save_due) == (4, 3, 15, False)
    assert (stats.lr, stats.grad_norm) == (0.1, 2.0)
    assert stats.is_finite and skip.item() == 0.0


@pytest.mark.parametrize(
    ("mine", "other", "expected"),
    [(10, 15, 10), (15, 10, 10), (2, 15, 15), (0, 2, 2), (0, 0, 0)],
)
def test_ranks_that_received_different_signals_choose_the_same(
    mine: int, other: int, expected: int
) -> None:
    rank, sums = RecordingRank(1, 2, torch.device("cpu")), {"loss": (torch.tensor(1.0), 1)}
    reduce_step_stats(sums, unreadable=1, signal=other, world=rank, **FIXED)
    world = OneOfTwo(rank.sent)  # type: ignore[attr-defined]
    queued, _ = reduce_step_stats(sums, unreadable=2, signal=mine, world=world, **FIXED)
    stats = queued.read()
    assert stats.signal == expected and stats.unreadable == 3 and stats.clips == 2
    reduce_signal(other, rank)
    assert reduce_signal(mine, OneOfTwo(rank.sent)) == expected  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("loss", "norm", "scale", "max_loss", "is_finite", "skip"),
    [
        (2.0, 1.0, None, None, True, 0.0),
        (math.nan, 1.0, None, None, False, 1.0),
        (math.inf, 1.0, None, None, False, 1.0),
        (2.0, math.inf, None, None, False, 1.0),
        (2.0, math.nan, None, None, False, 1.0),
        (2.0, 1.0, None, 1.0, True, 0.0),  # the mean loss of two clips is 1
        (2.1, 1.0, None, 1.0, False, 1.0),
        (-math.inf, 1.0, None, None, False, 1.0),
        (2.0, math.inf, 2.0, None, True, 1.0),  # the scale can be halved
        (2.0, math.inf, 1.0, None, False, 1.0),
        (math.nan, math.nan, 2.0, None, False, 1.0),
        (2.0, 1.0, 1.0, None, True, 0.0),
    ],
)
def test_the_check_on_the_device(
    loss: float,
    norm: float,
    scale: float | None,
    max_loss: float | None,
    is_finite: bool,
    skip: float,
) -> None:
    queued, actual = reduce_step_stats(
        {"loss": (torch.tensor(loss), 2)},
        unreadable=0,
        signal=0,
        world=SINGLE_PROCESS,
        lr=0.1,
        save_due=False,
        grad_norm=torch.tensor(norm),
        loss_scale=None if scale is None else torch.tensor(scale),
        max_loss=max_loss,
    )
    stats = queued.read()
    assert (stats.is_finite, actual.item(), actual.dtype) == (is_finite, skip, torch.float32)
    assert stats.averages["loss"] == pytest.approx(loss / 2, nan_ok=True)
    assert stats.grad_norm == pytest.approx(norm, nan_ok=True)


def test_a_gradient_that_overflows_on_another_rank_is_refused_here() -> None:
    rank, sums = RecordingRank(1, 2, torch.device("cpu")), {"loss": (torch.tensor(1.0), 1)}
    infinite = {**FIXED, "grad_norm": torch.tensor(math.inf)}
    reduce_step_stats(sums, unreadable=0, signal=0, world=rank, **infinite)
    world = OneOfTwo(rank.sent)  # type: ignore[attr-defined]
    queued, skip = reduce_step_stats(sums, unreadable=0, signal=0, world=world, **FIXED)
    assert not queued.read().is_finite and skip.item() == 1.0
