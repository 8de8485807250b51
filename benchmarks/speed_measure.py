"""Taking turns: every contestant once a round, the order turning; medians, and ratios within a round."""

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
from speed_contestants import Case, Contestant, make
from speed_floor import Floor, Product
from speed_rivals import import_for
from torch import Tensor

Clock = Literal["wall", "cpu"]
HERE = Path(__file__).parent


def in_turns(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Clock,
    device: str,
    warm_up: int = 1,
) -> dict[str, list[float]]:
    """Seconds of each run in each round. clock="cpu" is the process's own time, which neighbours on the machine hardly
    change; it means something with one thread alone."""
    tick = time.process_time if clock == "cpu" else time.perf_counter
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for run in runs.values():
        for _ in range(warm_up):
            run()
    names = list(runs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            wait()
            began = tick()
            runs[name]()
            wait()
            seconds[name].append(tick() - began)
    return seconds


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {
        "median": round(statistics.median(values), 5),
        "least": round(min(values), 5),
        "most": round(max(values), 5),
    }


def ratios(seconds: Mapping[str, list[float]], base: str) -> dict[str, dict[str, float]]:
    """Each contestant's seconds over `base`'s, round by round: above 1, `base` is faster."""
    return {
        name: spread([theirs / ours for theirs, ours in zip(values, seconds[base])])
        for name, values in seconds.items()
        if name != base
    }


def differences(contestants: Mapping[str, Contestant], base: str) -> dict[str, float]:
    """How far each is from `base` in what the step computes, and in all gradients together; relative."""
    expected = contestants[base].step()
    gradients = {name: grad.clone() for name, grad in contestants[base].gradients().items()}
    found = {}
    for name, contestant in contestants.items():
        if name in (base, "ours_half"):  # half a decoder computes something else
            continue
        computed = contestant.step()
        worst = max(_relative(computed[key], value) for key, value in expected.items())
        if gradients and name in ("reference", "optim"):
            theirs = contestant.gradients()
            assert theirs.keys() == gradients.keys(), sorted(theirs.keys() ^ gradients.keys())[:5]
            square = sum(
                float((theirs[key] - grad).square().sum()) for key, grad in gradients.items()
            )
            norm = sum(float(grad.square().sum()) for grad in gradients.values())
            worst = max(worst, (square / norm) ** 0.5)
        contestant.model.zero_grad(set_to_none=True)
        found[name] = worst
    contestants[base].model.zero_grad(set_to_none=True)
    return found


def _relative(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).abs().max() / other.float().abs().max())


def peak_memory(name: str, case: Case, threads: int) -> dict[str, float]:
    """GB that one contestant needs in a process of its own, less what the process held with its packages imported:
    `before` with model and batch, `peak` after two steps."""
    arguments = [name, json.dumps(asdict(case)), str(threads)]
    command = [sys.executable, str(HERE / "speed_measure.py"), *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{answer.stderr[-2000:]}")
    return {key: float(value) for key, value in json.loads(answer.stdout.splitlines()[-1]).items()}


def _measure_memory(name: str, case: Case) -> dict[str, float]:
    import_for(name)
    imported = 0 if case.device == "cuda" else _resident("VmRSS")
    contestant = make(name, case)
    if case.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = _resident("VmRSS")
    for _ in range(2):
        contestant.step()
    peak = torch.cuda.max_memory_allocated() if case.device == "cuda" else _resident("VmHWM")
    return {
        "before": round((before - imported) / 1e9, 3),
        "peak": round((peak - imported) / 1e9, 3),
    }


def _resident(field: str) -> int:
    """Bytes of this process now (VmRSS), or at the most (VmHWM)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux; there ru_maxrss is in bytes, and starts from what the parent had
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


@dataclass(frozen=True)
class Yardsticks:
    """What the machine can do at best, measured in the same rounds: one large square product, one large copy."""

    macs: int
    """Multiply-accumulates of the product."""
    bytes: int
    """Read and written by the copy."""
    runs: dict[str, Callable[[], object]]


def yardsticks(dtype: torch.dtype, device: str) -> Yardsticks:
    """Both, ready to take their turns."""
    side = 8192 if device == "cuda" else 2048
    square = Product(label="square", rows=side, inner=side, columns=side)
    source = torch.ones(2**28 if device == "cuda" else 2**25, device=device)
    target = torch.empty_like(source)
    product = Floor([square], 1, dtype, torch.device(device), backward=False).run
    return Yardsticks(
        square.macs, 2 * source.nbytes, {"product": product, "copy": lambda: target.copy_(source)}
    )


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    print(json.dumps(_measure_memory(sys.argv[1], Case(**json.loads(sys.argv[2])))))
