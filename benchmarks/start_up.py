"""CPU seconds until a command answers, and until a training has imported what it needs.

    python benchmarks/start_up.py
    python benchmarks/start_up.py --before ../old-checkout      # alternates with an earlier version

Each case is a process of its own; the median of five is written to results/start_up.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

from record import record

ROOT = Path(__file__).resolve().parents[1]
CASES = {
    "import torch": "import torch",
    "import hiera_video": "import hiera_video",
    "train --help": "from hiera_video.cli import train; train.main(['--help'])",
    "imports of a training": "import hiera_video.cli.train, hiera_video.workflows.train",
    "first optimizer": (
        "import hiera_video.cli.train, hiera_video.workflows.train, torch; "
        "torch.optim.AdamW([torch.zeros(1, requires_grad=True)])"
    ),
}


def cpu_seconds(code: str, checkout: Path) -> float:
    """Return the CPU seconds of a process that runs `code` on the package of a checkout."""
    before = os.times()
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", code],
        cwd="/",
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    after = os.times()
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


def main() -> None:
    """Measure all cases, both versions alternately."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="checkout of an earlier version")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    versions = {"now": ROOT, **({"before": arguments.before} if arguments.before else {})}
    found: dict[str, dict[str, float]] = {}
    for case, code in CASES.items():
        times: dict[str, list[float]] = {version: [] for version in versions}
        for _ in range(arguments.rounds):
            for version, checkout in versions.items():
                times[version].append(cpu_seconds(code, checkout.resolve()))
        found[case] = {name: round(statistics.median(t), 3) for name, t in times.items()}
        print(f"{case:24}", found[case], flush=True)
    record("start_up", {"cpu_seconds": found, "rounds": arguments.rounds})


if __name__ == "__main__":
    main()
