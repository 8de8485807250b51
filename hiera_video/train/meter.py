"""What the loop knows of time and of the other ranks: averages, clips a second, time left, reasons to save or stop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor

from hiera_video.runtime.distributed import World
from hiera_video.runtime.signals import STOP_SIGNALS
from hiera_video.train.devices import device_name, peak_flops, peak_memory_gb

logger = logging.getLogger(__name__)
MUCH_WAITING = 0.2
BROKEN_NAMED = 20
MACHINE = ("clips_per_second", "data_wait_share", "memory_gb", "mfu")


@dataclass(frozen=True)
class Agreement:
    """What all ranks know after a step."""

    averages: dict[str, float]
    clips: int
    broken: int
    signal: int
    save_due: bool


def agree(
    logs: dict[str, tuple[Tensor, int]], *, broken: int, signal: int, save_due: bool, world: World
) -> Agreement:
    """One reduction a step carries everything: sums and counts (never averages), and the reasons to save or stop."""
    flags = [
        torch.tensor(value, dtype=torch.float64) for value in (broken, save_due, *_flags(signal))
    ]
    sums = [
        number
        for value, count in logs.values()
        for number in (value.cpu(), torch.tensor(float(count)).double())
    ]
    reduced = world.all_reduce(torch.stack([*flags, *sums]).to(world.device)).tolist()
    total_broken, due = reduced[:2]
    signalled, values = reduced[2 : 2 + len(STOP_SIGNALS)], reduced[2 + len(STOP_SIGNALS) :]
    averages = {name: values[2 * place] / values[2 * place + 1] for place, name in enumerate(logs)}
    return Agreement(
        averages=averages,
        clips=int(values[1]),
        broken=int(total_broken),
        signal=_first(signalled),
        save_due=due > 0,
    )


def reduce_signal(signal: int, world: World) -> int:
    """The signal that some rank received, 0 where none did: asked after what takes longer than a step."""
    return _first(
        world.all_reduce(torch.tensor(_flags(signal), dtype=torch.float64, device=world.device)).tolist()
    )


def _flags(signal: int) -> list[float]:
    return [float(signal == number) for number in STOP_SIGNALS]


def _first(counts: list[float]) -> int:
    return next((int(number) for number, count in zip(STOP_SIGNALS, counts) if count), 0)


class Clock:
    """Time since the start and since the last checkpoint."""

    def __init__(self, first_step: int, total_steps: int) -> None:
        self._first_step, self._total_steps = first_step, total_steps
        self._started = self._saved = time.monotonic()

    def minutes(self) -> float:
        """Minutes since the last checkpoint."""
        return (time.monotonic() - self._saved) / 60

    def saved(self) -> None:
        """A checkpoint was just written."""
        self._saved = time.monotonic()

    def left(self, step: int) -> timedelta:
        """Time to the end at the speed so far."""
        per_step = (time.monotonic() - self._started) / (step - self._first_step)
        return timedelta(seconds=round(per_step * (self._total_steps - step)))


class Meter:
    """Averages between two log rows; `flops_per_clip` as in `Run`."""

    def __init__(self, world: World, flops_per_clip: float) -> None:
        self._world, self._flops_per_clip = world, flops_per_clip
        self._peak = peak_flops(device_name(world.device))
        self._restart()

    def _restart(self) -> None:
        self._sums: dict[str, float] = {}
        self._started, self._waited = time.monotonic(), 0.0
        self._steps = self._clips = 0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Around validation and checkpoints, which are not training."""
        started = time.monotonic()
        yield
        self._started += time.monotonic() - started

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the wait for data."""
        started = time.monotonic()
        yield
        self._waited += time.monotonic() - started

    def add(self, averages: dict[str, float], clips: int) -> None:
        """One step's averages over `clips` clips."""
        self._sums = {name: self._sums.get(name, 0.0) + value for name, value in averages.items()}
        self._steps, self._clips = self._steps + 1, self._clips + clips

    def take(self) -> dict[str, float]:
        """Means since the last call, clips a second, the share of the time that was spent waiting for data, the most
        memory so far, and where the devices' peak is known the share of it that the model's arithmetic took (MFU)."""
        seconds = time.monotonic() - self._started
        numbers = {name: total / self._steps for name, total in self._sums.items()}
        numbers |= {
            "clips_per_second": self._clips / seconds,
            "data_wait_share": self._waited / seconds,
        }
        numbers["memory_gb"] = peak_memory_gb(self._world.device)
        if self._peak:
            numbers["mfu"] = (
                numbers["clips_per_second"] * self._flops_per_clip / (self._peak * self._world.size)
            )
        self._restart()
        return numbers


class LoaderWatch:
    """Says when the devices wait for data, once until they no longer do."""

    def __init__(self) -> None:
        self._rows, self._told = 0, False

    def look(self, wait_share: float) -> None:
        """A log row's `data_wait_share`. The first row holds the loader's start and says nothing."""
        self._rows += 1
        if self._rows > 1 and wait_share > MUCH_WAITING and not self._told:
            logger.warning(
                "loading is the bottleneck: %.0f %% of the time the model waits for clips; raise data.workers to the "
                "cores of this machine, store the videos smaller, or raise clip.repeats",
                100 * wait_share,
            )
            self._told = True
        elif wait_share < MUCH_WAITING / 2:
            self._told = False


class BrokenWatch:
    """Names each video of this rank that cannot be read, once; after `BROKEN_NAMED` of them they are only counted."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def look(self, substituted: Iterable[tuple[str, str]]) -> None:
        """Paths and reasons of a step."""
        for path, reason in substituted:
            if path in self._told or len(self._told) > BROKEN_NAMED:
                continue
            self._told.add(path)
            if len(self._told) > BROKEN_NAMED:
                logger.warning(
                    "more videos cannot be read: they are counted from here; tools/check_data.py names them all"
                )
            else:
                logger.warning(
                    "%s: cannot be read (%s); another video takes its place", path, reason
                )


def progress_line(
    step: int, total: int, per_epoch: int, numbers: dict[str, float], lr: float, clock: Clock
) -> str:
    epoch = f"epoch {(step - 1) // per_epoch + 1}/{math.ceil(total / per_epoch)}"
    shown = {name: value for name, value in numbers.items() if name not in MACHINE}
    mfu = f"MFU {numbers['mfu']:.0%}  " if "mfu" in numbers else ""
    return (
        f"{epoch} step {step}/{total}  {show(shown)}  lr {lr:.2e}  {numbers['clips_per_second']:.1f} clips/s  "
        f"data {numbers['data_wait_share']:.0%}  {mfu}{numbers['memory_gb']:.1f} GB  {clock.left(step)} left"
    )


def show(numbers: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
