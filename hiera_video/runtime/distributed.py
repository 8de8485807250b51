"""Distributed set-up under `torchrun`; without torchrun a run is rank 0 of 1."""

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
"""Timeout of collectives, after which the process ends with an error. During evaluation the ranks
meet only at the end and drift apart by as much as their videos differ, which can exceed NCCL's
default of 10 minutes."""


@dataclass(frozen=True)
class World:
    """Rank, world size and device of this process."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """True on rank 0, the only rank that writes files and logs."""
        return self.rank == 0

    def all_reduce(self, values: Tensor) -> Tensor:
        """Sum `values` over all ranks, in place, and return them."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def all_gather(self, value: Any) -> list[Any]:
        """Return every rank's `value` (any picklable object) in rank order, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values


SINGLE_PROCESS = World(0, 1, torch.device("cpu"))
"""World of a single process on the CPU."""


@contextmanager
def init_distributed() -> Iterator[World]:
    """Join the process group that torchrun started and leave it when the block ends.

    Tensors on GPUs travel by NCCL; those on the CPU and pickled objects by gloo, because NCCL would
    copy an object of any size to the GPU and back. A single process joins no group.

    Yields:
        The `World` of this process.

    Raises:
        ConfigError: There are more processes than GPUs on this machine.
    """
    size, rank, local_rank = (
        int(os.environ.get(name, default))
        for name, default in (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0"))
    )
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", _gpu_index(local_rank))
        torch.cuda.set_device(device)
    if size == 1:
        yield World(0, 1, device)
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=TIMEOUT)
    try:
        yield World(rank, size, device)
    except BaseException:
        # NCCL would wait here for ranks that are still running, and torchrun stops those only
        # after this process has exited
        if device.type == "cpu":
            distributed.destroy_process_group()
        raise
    distributed.destroy_process_group()


def _gpu_index(local_rank: int) -> int:
    count = torch.cuda.device_count()
    if local_rank < count:
        return local_rank
    # a scheduler may show each process only its own GPU; torchrun shows all GPUs to every process
    if count == 1 and not distributed.is_torchelastic_launched():
        return 0
    raise ConfigError(
        f"LOCAL_RANK={local_rank}: each process needs its own GPU, and this machine has {count}; "
        f"start at most {count} per machine (torchrun --nproc-per-node={count})"
    )
