"""Throughput, averages between log rows, and time left."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

import torch

from hiera_video.runtime.distributed import World
from hiera_video.train.devices import device_name, peak_flops, peak_memory_gb

MACHINE_METRICS = ("clips_per_second", "data_wait_share", "memory_gb", "mfu")
Clock = Callable[[], float]
"""Returns seconds, like `time.monotonic`."""


class RunTimer:
    """Time since the start of training and since the last checkpoint.

    Args:
        first_step: Step at which training starts or resumes.
        total_steps: Step at which the run ends.
        clock: Source of the time.
    """

    def __init__(self, first_step: int, total_steps: int, clock: Clock = time.monotonic) -> None:
        self._first_step, self._total_steps, self._clock = first_step, total_steps, clock
        self._started = self._saved = clock()

    def minutes_since_save(self) -> float:
        """Return the minutes since the last checkpoint, or since the start."""
        return (self._clock() - self._saved) / 60

    def mark_saved(self) -> None:
        """Record that a checkpoint was written."""
        self._saved = self._clock()

    def time_left(self, step: int) -> timedelta:
        """Return the time to the end of the run at the speed so far, after `step` steps."""
        per_step = (self._clock() - self._started) / (step - self._first_step)
        return timedelta(seconds=round(per_step * (self._total_steps - step)))


class TimeMark(Protocol):
    """A point in the work of a device."""

    def has_passed(self) -> bool:
        """Return True if the device has reached it."""

    def seconds_until(self, later: TimeMark) -> float:
        """Return the time from this mark to a later one; both must have passed."""


class ClockMark:
    """The time of its creation, by a clock."""

    def __init__(self, clock: Clock) -> None:
        self.time = clock()

    def has_passed(self) -> bool:
        return True

    def seconds_until(self, later: TimeMark) -> float:
        assert isinstance(later, ClockMark)
        return later.time - self.time


class CudaMark:
    """The end of all work that a GPU has been given until its creation."""

    def __init__(self, device: torch.device) -> None:
        self.event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self.event.record(torch.cuda.current_stream(device))

    def has_passed(self) -> bool:
        return bool(self.event.query())  # type: ignore[no-untyped-call]

    def seconds_until(self, later: TimeMark) -> float:
        assert isinstance(later, CudaMark)
        return float(self.event.elapsed_time(later.event)) / 1000


class Meter:
    """Averages and throughput between two log rows.

    Args:
        world: The ranks.
        flops_per_clip: Floating-point operations of forward and backward pass.
        clock: Source of the time.
        mark: Returns the current end of the device's work; for tests.
    """

    def __init__(
        self,
        world: World,
        flops_per_clip: float,
        clock: Clock = time.monotonic,
        *,
        mark: Callable[[], TimeMark] | None = None,
    ) -> None:
        self._world, self._flops_per_clip, self._clock = world, flops_per_clip, clock
        self._mark = mark or self._device_mark
        self._waits: deque[tuple[TimeMark, TimeMark]] = deque()
        self._peak = peak_flops(device_name(world.device))
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, float] = {}
        self._started, self._waited = self._clock(), 0.0
        self._steps = self._clips = 0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the block, such as a validation or a checkpoint, from training time."""
        started = self._clock()
        yield
        self._started += self._clock() - started

    def _device_mark(self) -> TimeMark:
        device = self._world.device
        return CudaMark(device) if device.type == "cuda" else ClockMark(self._clock)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the block as time spent waiting for data, as far as the device has no other work.

        A GPU that is still computing when the host has its data has not waited.
        """
        started = self._mark()
        yield
        self._waits.append((started, self._mark()))

    def add(self, averages: dict[str, float], clips: int) -> None:
        """Add one step's averages over `clips` clips."""
        self._sums = {name: self._sums.get(name, 0.0) + value for name, value in averages.items()}
        self._steps, self._clips = self._steps + 1, self._clips + clips

    def _add_waits(self) -> None:
        """Add the waits that the device has reached; others count in the next row."""
        while self._waits and self._waits[0][1].has_passed():
            started, ended = self._waits.popleft()
            self._waited += started.seconds_until(ended)

    def summarise(self) -> dict[str, float]:
        """Return the numbers of a log row, and start the next one.

        Returns:
            The mean of each metric since the last call; `clips_per_second`; `data_wait_share`, the
            share of the time for which the device waited for data; `memory_gb`, the peak so far;
            and on devices of known peak speed `mfu`, the share of it that the model's arithmetic
            achieved.
        """
        self._add_waits()
        seconds = self._clock() - self._started
        numbers = {name: total / self._steps for name, total in self._sums.items()}
        numbers |= {
            "clips_per_second": self._clips / seconds,
            "data_wait_share": self._waited / seconds,
            "memory_gb": peak_memory_gb(self._world.device),
        }
        if self._peak:
            numbers["mfu"] = (
                numbers["clips_per_second"] * self._flops_per_clip / (self._peak * self._world.size)
            )
        self._reset()
        return numbers


def progress_line(
    step: int,
    *,
    total_steps: int,
    steps_per_epoch: int,
    numbers: dict[str, float],
    lr: float,
    time_left: timedelta,
) -> str:
    """Return the line that is logged after `step` steps, from a row of `Meter.summarise`."""
    epoch, epochs = (step - 1) // steps_per_epoch + 1, math.ceil(total_steps / steps_per_epoch)
    metrics = {name: value for name, value in numbers.items() if name not in MACHINE_METRICS}
    parts = [
        f"epoch {epoch}/{epochs} step {step}/{total_steps}",
        format_numbers(metrics),
        f"lr {lr:.2e}",
        f"{numbers['clips_per_second']:.1f} clips/s",
        f"data {numbers['data_wait_share']:.0%}",
        *([f"MFU {numbers['mfu']:.0%}"] if "mfu" in numbers else []),
        f"{numbers['memory_gb']:.1f} GB",
        f"{time_left} left",
    ]
    return "  ".join(parts)


def format_numbers(numbers: dict[str, float]) -> str:
    """Return names and values for the log.

    >>> format_numbers({"loss": 0.123456, "top1": 50.0})
    'loss 0.1235  top1 50'
    """
    return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
