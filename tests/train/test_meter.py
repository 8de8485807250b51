"""Throughput, averages and time left, by a clock that the test sets."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
import torch

from hiera_video.runtime.distributed import World
from hiera_video.train import meter as module
from hiera_video.train.devices import peak_memory_gb
from hiera_video.train.meter import Meter, RunTimer, progress_line

CPU = torch.device("cpu")


class SetClock:
    """A clock that stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_row_holds_means_throughput_and_mfu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "peak_flops", lambda name: 1000.0)
    clock = SetClock()
    meter = Meter(World(0, 2, CPU), flops_per_clip=50.0, clock=clock)
    with meter.waiting():
        clock.now = 1.0
    meter.add({"loss": 3.0}, clips=40)
    with meter.paused():
        clock.now = 101.0
    meter.add({"loss": 1.0}, clips=40)
    clock.now = 104.0
    numbers = meter.summarise()
    # 80 clips in 4 s: 20 per second × 50 operations = 1000 of 2 × 1000
    assert numbers.pop("memory_gb") == peak_memory_gb(CPU) > 0.1
    assert numbers == {"loss": 2.0, "clips_per_second": 20.0, "data_wait_share": 0.25, "mfu": 0.5}
    meter.add({"loss": 5.0}, clips=40)
    clock.now = 105.0
    assert meter.summarise()["loss"] == 5.0


class DeviceQueue:
    """A device that reaches its marks when the test says so."""

    def __init__(self) -> None:
        self.reached = 0.0

    def mark(self, time: float) -> DeviceQueueMark:
        return DeviceQueueMark(self, time)


class DeviceQueueMark:
    """A mark that the device reaches at `time`."""

    def __init__(self, queue: DeviceQueue, time: float) -> None:
        self.queue, self.time = queue, time

    def has_passed(self) -> bool:
        return self.queue.reached >= self.time

    def seconds_until(self, later: Any) -> float:
        assert self.has_passed() and later.has_passed()
        return float(later.time - self.time)


def test_a_device_waits_only_while_it_has_no_work() -> None:
    """The host waits for data from 0 to 4 s, 4 to 8 s and 8 to 9 s; the device works until 7 s."""
    clock, queue = SetClock(), DeviceQueue()
    times = iter([0.0, 4.0, 7.0, 8.0, 9.5, 9.5])
    meter = Meter(World(0, 1, CPU), 0.0, clock, mark=lambda: queue.mark(next(times)))
    for _ in range(3):
        with meter.waiting():
            pass
        meter.add({"loss": 1.0}, clips=1)
    clock.now, queue.reached = 10.0, 8.0
    assert meter.summarise()["data_wait_share"] == 0.5  # 4 s and 1 s of 10; the third is queued
    meter.add({"loss": 1.0}, clips=1)
    clock.now, queue.reached = 12.0, 9.5
    assert meter.summarise()["data_wait_share"] == 0.0


@pytest.mark.gpu
def test_a_gpu_that_computes_does_not_wait() -> None:
    """Not in tests/gpu: the time that the GPU waits."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device = torch.device("cuda", 0)
    values = torch.randn(4096, 4096, device=device)
    (values @ values).tanh().sum().item()  # loads the kernels
    meter = Meter(World(0, 1, device), 0.0)
    with meter.waiting():
        time.sleep(0.05)
    torch.cuda.synchronize()
    meter.add({"loss": 1.0}, clips=1)
    assert meter.summarise()["data_wait_share"] > 0.5
    for _ in range(200):
        values = (values @ values).tanh()
    with meter.waiting():
        time.sleep(0.005)
    torch.cuda.synchronize()
    meter.add({"loss": 1.0}, clips=1)
    assert meter.summarise()["data_wait_share"] < 0.05


def test_time_left_and_time_since_the_last_checkpoint() -> None:
    clock = SetClock()
    timer = RunTimer(first_step=10, total_steps=100, clock=clock)
    clock.now = 120.0
    assert timer.time_left(step=20) == timedelta(seconds=12 * 80)
    assert timer.minutes_since_save() == 2
    timer.mark_saved()
    clock.now = 150.0
    assert timer.minutes_since_save() == 0.5


def test_progress_line() -> None:
    numbers = {"loss": 1.23456, "clips_per_second": 20.0, "data_wait_share": 0.25, "memory_gb": 1.5}
    line = progress_line(
        7,
        total_steps=12,
        steps_per_epoch=6,
        numbers={**numbers, "mfu": 0.5},
        lr=4e-4,
        time_left=timedelta(seconds=90),
    )
    assert line == (
        "epoch 2/2 step 7/12  loss 1.235  lr 4.00e-04  20.0 clips/s  data 25%  MFU 50%  1.5 GB  "
        "0:01:30 left"
    )
