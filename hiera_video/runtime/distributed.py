"""Processes of one run, as `torchrun` starts them; a run without torchrun is rank 0 of 1."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from hiera_video.errors import ConfigError

TIMEOUT = timedelta(hours=1)
"""How long a rank waits for the others. Those of a test or validation do not meet before its end, and drift apart by as
much as their videos differ, which can be more than NCCL's own 10 minutes."""


@dataclass(frozen=True)
class World:
    """This process's place and device."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Rank 0 alone writes files and logs."""
        return self.rank == 0

    def all_reduce(self, values: Tensor) -> Tensor:
        """Sum over the ranks, on every rank."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def all_gather(self, value: Any) -> list[Any]:
        """Every rank's `value`, in rank order, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values


SINGLE_PROCESS = World(0, 1, torch.device("cpu"))
"""One process without a device of its own."""


@contextmanager
def init_distributed() -> Iterator[World]:
    """Join the processes that torchrun started; gloo on CPU, NCCL on GPUs. Raises `ConfigError` where there are more
    processes than GPUs."""
    size, rank, local = (
        int(os.environ.get(name, default))
        for name, default in (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0"))
    )
    device = torch.device("cuda", _gpu(local)) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if size == 1:
        yield World(0, 1, device)
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield World(rank, size, device)
    except BaseException:
        # NCCL would wait here for the ranks that go on, which torchrun stops only when this one has ended
        if device.type == "cpu":
            distributed.destroy_process_group()
        raise
    distributed.destroy_process_group()


def _gpu(local_rank: int) -> int:
    """Number of this process's GPU among those that it sees."""
    count = torch.cuda.device_count()
    if local_rank < count:
        return local_rank
    if count == 1 and not distributed.is_torchelastic_launched():
        return (
            0  # a scheduler shows each process its own GPU alone; torchrun shows all of them to all
        )
    raise ConfigError(
        f"LOCAL_RANK={local_rank}: each process needs a GPU of its own, and this machine shows {count}; start at most "
        f"{count} a machine (torchrun --nproc-per-node={count})"
    )
