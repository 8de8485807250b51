"""GPU of each process, timeout of collectives, and shutdown after a failure."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
import torch

from hiera_video.errors import ConfigError
from hiera_video.runtime.distributed import init_distributed


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that fakes the GPUs and the environment variables."""

    def pretend(*, gpus: int, torchrun: bool = False, **environment: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
        for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        if torchrun:
            monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")

    return pretend


@pytest.mark.parametrize(
    ("gpus", "torchrun", "local", "expected"),
    [
        (0, True, 3, "cpu"),
        (8, True, 3, "cuda:3"),
        (1, False, 0, "cuda:0"),
        (1, False, 3, "cuda:0"),  # srun --gpus-per-task=1
    ],
)
def test_each_process_uses_its_own_gpu(
    machine: Any, gpus: int, torchrun: bool, local: int, expected: str
) -> None:
    machine(gpus=gpus, torchrun=torchrun, LOCAL_RANK=local)
    with init_distributed() as world:
        assert world.device == torch.device(expected)


@pytest.mark.parametrize(("gpus", "torchrun", "local"), [(1, True, 1), (2, True, 2), (2, False, 3)])
def test_more_processes_than_gpus_are_refused(
    machine: Any, gpus: int, torchrun: bool, local: int
) -> None:
    machine(gpus=gpus, torchrun=torchrun, LOCAL_RANK=local)
    words = (
        f"LOCAL_RANK={local}: each process needs its own GPU, and this machine has {gpus}; "
        rf"start at most {gpus} per machine \(torchrun --nproc-per-node={gpus}\)"
    )
    with pytest.raises(ConfigError, match=words), init_distributed():
        pass


@pytest.mark.parametrize(("gpus", "backend"), [(2, "cpu:gloo,cuda:nccl"), (0, "gloo")])
def test_collectives_time_out_after_an_hour(
    machine: Any, monkeypatch: pytest.MonkeyPatch, gpus: int, backend: str
) -> None:
    machine(gpus=gpus, WORLD_SIZE=2, RANK=1, LOCAL_RANK=1)
    joined: list[tuple[str, timedelta]] = []
    monkeypatch.setattr(
        torch.distributed,
        "init_process_group",
        lambda name, timeout=None: joined.append((name, timeout)),
    )
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    with init_distributed() as world:
        assert (world.rank, world.size) == (1, 2)
    assert joined == [(backend, timedelta(hours=1))]


@pytest.mark.parametrize(("gpus", "count"), [(2, 0), (0, 1)])
def test_a_rank_that_fails_does_not_wait_for_the_others(
    machine: Any, monkeypatch: pytest.MonkeyPatch, gpus: int, count: int
) -> None:
    """Destroying an NCCL group waits for other ranks, which torchrun stops only after this one."""
    machine(gpus=gpus, WORLD_SIZE=2, RANK=1, LOCAL_RANK=1)
    destroyed: list[bool] = []
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: destroyed.append(True))
    with pytest.raises(ValueError, match="a bug"), init_distributed():
        raise ValueError("a bug")
    assert len(destroyed) == count
    with init_distributed():
        pass
    assert len(destroyed) == count + 1


RANK_THAT_DIES = """
import os, signal, torch
from hiera_video.runtime.distributed import init_distributed
with init_distributed() as world:
    assert world.all_gather(f"rank {world.rank}") == ["rank 0", "rank 1"]
    if world.rank:
        os.kill(os.getpid(), signal.SIGKILL)
    world.all_reduce(torch.ones(1))
"""


@pytest.mark.fault
def test_a_rank_that_dies_ends_the_others_with_an_error() -> None:
    """Also without torchrun, which would stop them: srun starts ranks that nothing watches."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK_THAT_DIES],
            env={
                **os.environ,
                "WORLD_SIZE": "2",
                "RANK": str(rank),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "CUDA_VISIBLE_DEVICES": "",
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        _, errors = ranks[0].communicate(timeout=120)
        assert ranks[1].wait(timeout=120) == -signal.SIGKILL
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert ranks[0].returncode == 1 and "RuntimeError" in errors
