"""Timing of GPU work in rounds, and the limits of the device: matrix product, copies."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

Run = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Device and duration of measurements."""

    device: torch.device
    """The GPU, or the CPU for a trial run."""
    micro: bool
    """Micro models and small tensors, to try the script out."""
    rounds: int = 5
    """Timed rounds; every candidate runs once a round."""
    round_seconds: float = 0.08
    """A candidate repeats its work until a round takes about this long."""

    @property
    def on_gpu(self) -> bool:
        """True unless this is a trial on the CPU."""
        return self.device.type == "cuda"


def seconds_of(run: Run, repeats: int, device: torch.device) -> float:
    """Return the mean seconds of `repeats` calls: by CUDA events on a GPU, else by the clock."""
    if device.type != "cuda":
        began = time.perf_counter()
        for _ in range(repeats):
            run()
        return (time.perf_counter() - began) / repeats
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / repeats


def time_candidates(runs: Mapping[str, Run], setup: Setup) -> dict[str, dict[str, float]]:
    """Time every candidate in each round, in rotating order.

    Args:
        runs: Candidates by name; each has run at least once before.
        setup: Device and number of rounds.

    Returns:
        Median, least and most seconds of one call, by name.
    """
    repeats = {
        name: max(1, min(50, int(setup.round_seconds / seconds_of(run, 2, setup.device))))
        for name, run in runs.items()
    }
    names, seconds = list(runs), {name: list[float]() for name in runs}
    for round_ in range(setup.rounds):
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(seconds_of(runs[name], repeats[name], setup.device))
    return {name: summarise(values) for name, values in seconds.items()}


def summarise(values: list[float]) -> dict[str, float]:
    """Return the median, the least and the most, to six digits.

    >>> summarise([0.3, 0.1, 0.2])
    {'median': 0.2, 'least': 0.1, 'most': 0.3}
    """
    found = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: float(f"{value:.6g}") for name, value in found.items()}


def measure_ceilings(setup: Setup) -> dict[str, Any]:
    """Measure the highest rates that a plain operation reaches on the device.

    Returns:
        `matmul_tflops` of a bf16 product of random data, `copy_gb_per_second` on the device (read
        and written bytes), and from the CPU to the device from pinned and from pageable memory.
    """
    device, side = setup.device, 256 if setup.micro else 8192
    count = 2**18 if setup.micro else 2**28
    one, other = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    product = torch.empty_like(one)
    source = torch.randn(count, device=device)
    target = torch.empty_like(source)
    host = torch.empty(count // 4, dtype=torch.float32)
    host.fill_(1)
    pinned = host.pin_memory() if setup.on_gpu else host.clone()
    on_device = torch.empty(host.shape, device=device)
    runs: dict[str, Run] = {
        "matmul": lambda: torch.mm(one, other, out=product),
        "copy": lambda: target.copy_(source),
        "pinned": lambda: on_device.copy_(pinned, non_blocking=True),
        "pageable": lambda: on_device.copy_(host),
    }
    for run in runs.values():
        for _ in range(3):
            run()
    times = {name: summary["median"] for name, summary in time_candidates(runs, setup).items()}
    return {
        "matmul_side": side,
        "matmul_tflops": round(2 * side**3 / times["matmul"] / 1e12, 3),
        "copy_gb_per_second": round(2 * source.nbytes / times["copy"] / 1e9, 2),
        "pinned_gb_per_second": round(host.nbytes / times["pinned"] / 1e9, 2),
        "pageable_gb_per_second": round(host.nbytes / times["pageable"] / 1e9, 2),
    }
