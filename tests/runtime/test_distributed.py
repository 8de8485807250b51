"""Which GPU a process takes, and how long the processes wait for each other."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import torch

from hiera_video.errors import ConfigError
from hiera_video.runtime.distributed import init_distributed


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call it with what torch and the environment are to say."""

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
def test_each_process_takes_a_gpu_of_its_own(
    machine: Any, gpus: int, torchrun: bool, local: int, expected: str
) -> None:
    machine(gpus=gpus, torchrun=torchrun, LOCAL_RANK=local)
    with init_distributed() as here:
        assert here.device == torch.device(expected)


@pytest.mark.parametrize(("gpus", "torchrun", "local"), [(1, True, 1), (2, True, 2), (2, False, 3)])
def test_more_processes_than_gpus(machine: Any, gpus: int, torchrun: bool, local: int) -> None:
    machine(gpus=gpus, torchrun=torchrun, LOCAL_RANK=local)
    words = (
        f"LOCAL_RANK={local}: each process needs a GPU of its own, and this machine shows {gpus}; start at most {gpus} "
        rf"a machine \(torchrun --nproc-per-node={gpus}\)"
    )
    with pytest.raises(ConfigError, match=words), init_distributed():
        pass


@pytest.mark.parametrize(("gpus", "backend"), [(2, "nccl"), (0, "gloo")])
def test_processes_wait_an_hour_for_each_other(
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
    with init_distributed() as here:
        assert (here.rank, here.size) == (1, 2)
    assert joined == [(backend, timedelta(hours=1))]


@pytest.mark.parametrize(("gpus", "left"), [(2, 0), (0, 1)])
def test_a_rank_that_fails_does_not_wait_for_the_others(
    machine: Any, monkeypatch: pytest.MonkeyPatch, gpus: int, left: int
) -> None:
    """NCCL's way out waits for kernels that the other ranks have begun with it; torchrun waits for this process's end."""
    machine(gpus=gpus, WORLD_SIZE=2, RANK=1, LOCAL_RANK=1)
    ends: list[str] = []
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: ends.append("left"))
    with pytest.raises(ValueError, match="a defect"), init_distributed():
        raise ValueError("a defect")
    assert len(ends) == left
    with init_distributed():
        pass
    assert len(ends) == left + 1
