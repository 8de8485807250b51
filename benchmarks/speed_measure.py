"""Timing in rounds: every implementation runs once a round, in rotating order.

Reports medians, and ratios of two times of the same round.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from speed_case import Case
from speed_implementations import Implementation, build
from speed_lower_bound import LowerBound, Product
from speed_packages import State, import_package
from torch import Tensor

Clock = Literal["wall", "cpu"]


def time_in_turns(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Clock,
    device: str,
    warm_up: int = 1,
) -> dict[str, list[float]]:
    """Time every run once in each round, in rotating order.

    Args:
        runs: Functions by name.
        rounds: Number of rounds.
        clock: "wall", or "cpu" for the process's CPU time, which other processes hardly affect and
            which is meaningful with one thread only.
        device: "cpu", or "cuda" to wait for the GPU around each run.
        warm_up: Number of untimed runs of each function.

    Returns:
        Seconds by name, one for each round.
    """
    now = time.process_time if clock == "cpu" else time.perf_counter
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for run in runs.values():
        for _ in range(warm_up):
            run()
    names = list(runs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(rounds):
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            wait()
            began = now()
            runs[name]()
            wait()
            seconds[name].append(now() - began)
    return seconds


def summarise(values: list[float]) -> dict[str, float]:
    """Return the median, the least and the most."""
    return {
        "median": round(statistics.median(values), 5),
        "least": round(min(values), 5),
        "most": round(max(values), 5),
    }


def ratios(seconds: Mapping[str, list[float]], base: str) -> dict[str, dict[str, float]]:
    """Return each run's seconds over `base`'s, round by round; above 1, `base` is faster."""
    return {
        name: summarise([theirs / ours for theirs, ours in zip(values, seconds[base])])
        for name, values in seconds.items()
        if name != base
    }


def differences(implementations: Mapping[str, Implementation], base: str) -> dict[str, float]:
    """Return each implementation's relative difference from `base`.

    The larger of two differences counts: that of the step's result, and that of all gradients
    together.
    """
    expected = implementations[base].step()
    gradients = {name: grad.clone() for name, grad in implementations[base].gradients().items()}
    found = {}
    for name, implementation in implementations.items():
        if name in (base, "ours_half"):  # half a decoder has another result
            continue
        computed = implementation.step()
        worst = max(_relative(computed[key], value) for key, value in expected.items())
        if gradients and name in ("reference", "optim"):
            worst = max(worst, _gradient_difference(implementation.gradients(), gradients))
        implementation.model.zero_grad(set_to_none=True)
        found[name] = worst
    implementations[base].model.zero_grad(set_to_none=True)
    return found


def _gradient_difference(actual: State, expected: State) -> float:
    assert actual.keys() == expected.keys(), sorted(actual.keys() ^ expected.keys())[:5]
    square = sum(float((actual[key] - grad).square().sum()) for key, grad in expected.items())
    norm = sum(float(grad.square().sum()) for grad in expected.values())
    return float((square / norm) ** 0.5)


def _relative(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).abs().max() / other.float().abs().max())


def peak_memory(name: str, case: Case, threads: int) -> dict[str, float]:
    """Measure the memory of one implementation in a process of its own, in GB.

    Memory of the imported packages is subtracted. `before` is with model and batch, `peak` after
    two steps.
    """
    arguments = [name, json.dumps(asdict(case)), str(threads)]
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return {key: float(value) for key, value in json.loads(done.stdout.splitlines()[-1]).items()}


def _measure_memory(name: str, case: Case) -> dict[str, float]:
    import_package(name)
    imported = 0 if case.device == "cuda" else _resident("VmRSS")
    implementation = build(name, case)
    if case.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = _resident("VmRSS")
    for _ in range(2):
        implementation.step()
    peak = torch.cuda.max_memory_allocated() if case.device == "cuda" else _resident("VmHWM")
    return {
        "before": round((before - imported) / 1e9, 3),
        "peak": round((peak - imported) / 1e9, 3),
    }


def _resident(field: str) -> int:
    """Return the resident bytes of this process now (VmRSS) or at their peak (VmHWM)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux: ru_maxrss is in bytes, and includes the parent's peak
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


@dataclass(frozen=True)
class MachineLimits:
    """Peak of the machine, measured in the same rounds: a large product and a large copy."""

    macs: int
    """Multiply-accumulates of the product."""
    bytes: int
    """Bytes read and written by the copy."""
    runs: dict[str, Callable[[], object]]
    """Functions to time, `product` and `copy`."""


def machine_limits(dtype: torch.dtype, device: str) -> MachineLimits:
    """Prepare the product and the copy."""
    side = 8192 if device == "cuda" else 2048
    square = Product(label="square", rows=side, inner=side, columns=side)
    source = torch.ones(2**28 if device == "cuda" else 2**25, device=device)
    target = torch.empty_like(source)
    product = LowerBound([square], 1, dtype, torch.device(device), backward=False).run
    return MachineLimits(
        square.macs, 2 * source.nbytes, {"product": product, "copy": lambda: target.copy_(source)}
    )


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    print(json.dumps(_measure_memory(sys.argv[1], Case(**json.loads(sys.argv[2])))))
