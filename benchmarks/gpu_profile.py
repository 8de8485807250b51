"""Time of a step by GPU kernel, of the candidates of gpu_models.py."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from gpu_models import build, free_memory, make_batch, make_case, make_state
from gpu_timing import Setup
from speed_case import Mode
from torch.profiler import ProfilerActivity, profile

STEPS, KERNELS, NAME = 3, 24, 110
"""Profiled steps, kernels listed, characters of a kernel's name."""


def profile_step(mode: Mode, size: str, batch: int, name: str, setup: Setup) -> dict[str, Any]:
    """Profile one candidate; arguments as of `measure`.

    Returns:
        `kernels`: milliseconds of a step, calls of a step and name of the longest kernels, and
        `device_ms`, the sum over all of them.
    """
    case = make_case(mode, size, batch, setup)
    inputs = make_batch(case, setup.device)
    run = build(name, case, inputs, make_state(case, setup)[0], setup)
    for _ in range(STEPS):
        run()
    activity = ProfilerActivity.CUDA if setup.on_gpu else ProfilerActivity.CPU
    with profile(activities=[activity]) as profiler:
        for _ in range(STEPS):
            run()
        if setup.on_gpu:
            torch.cuda.synchronize()
    times: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for event in profiler.key_averages():
        time = event.self_device_time_total if setup.on_gpu else event.self_cpu_time_total
        times[event.key[:NAME]] += time / 1e3 / STEPS
        counts[event.key[:NAME]] += event.count
    longest = sorted(times, key=lambda key: -times[key])[:KERNELS]
    del run
    free_memory(setup)
    return {
        "kernels": [[round(times[key], 3), counts[key] // STEPS, key] for key in longest],
        "device_ms": round(sum(times.values()), 3),
    }
