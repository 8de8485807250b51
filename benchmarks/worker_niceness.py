"""Milliseconds of a training step on the CPU, with the workers' niceness at 0 and at 10 in turns.

    python benchmarks/worker_niceness.py data/motion_hard

The folder is that of `hiera-video prepare motion --hard`. Each training is a process of its own:
micro Hiera at 16×32×32, batches of 16 videos, 80 steps after 20 others. Writes
results/worker_niceness.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from record import record

from hiera_video.cli.main import run_command
from hiera_video.data.loading import worker

ROOT = Path(__file__).resolve().parents[1]
TASKS = {"pre-training": "motion_hard_hiera_micro_mae", "fine-tuning": "motion_hard_hiera_micro"}
WARM_UP, STEPS = 20, 80


def train_timed(arguments: list[str], niceness: int) -> None:
    """Run a training; after the steps, print the mean milliseconds of one and exit."""
    worker.NICENESS = niceness  # the workers are forked
    times: list[float] = []
    update = torch.optim.AdamW.step

    def timed_update(self: torch.optim.AdamW, closure: None = None) -> None:
        times.append(time.perf_counter())
        if len(times) == WARM_UP + STEPS:
            print("milliseconds", 1e3 * (times[-1] - times[WARM_UP]) / (STEPS - 1), flush=True)
            os._exit(0)
        update(self, closure)

    torch.optim.AdamW.step = timed_update  # type: ignore[method-assign,assignment]
    run_command(["train", *arguments])


def step_milliseconds(config: str, data: Path, out: Path, niceness: int) -> float:
    """Return the mean milliseconds of a step of a training in a process of its own."""
    lists = [f"data.{name}={data / f'{name}.csv'}" for name in ("train", "val")]
    command = [sys.executable, __file__, "--niceness", str(niceness), "--cfg", config, *lists]
    done = subprocess.run(
        [*command, f"out_dir={out}", "train.epochs=1", "optim.warmup_epochs=0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split("milliseconds")[1].split()[0])


def main() -> None:
    """Measure both tasks, alternating between the two settings."""
    if sys.argv[1:2] == ["--niceness"]:
        train_timed(sys.argv[3:], int(sys.argv[2]))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("/tmp/worker_niceness"))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    found = {}
    for task, config in TASKS.items():
        times: dict[int, list[float]] = {0: [], worker.NICENESS: []}
        for number in range(arguments.rounds):
            for niceness, measured in times.items():
                out = arguments.out / f"{config}_{number}_{niceness}"
                measured.append(step_milliseconds(config, arguments.data.resolve(), out, niceness))
        before, after = (statistics.median(measured) for measured in times.values())
        found[task] = {
            "milliseconds a step": {
                f"niceness {niceness}": [round(value, 1) for value in measured]
                for niceness, measured in times.items()
            },
            "ratio of the medians": round(before / after, 3),
        }
        print(task, found[task], flush=True)
    record("worker_niceness", {"threads": torch.get_num_threads(), "tasks": found})


if __name__ == "__main__":
    main()
