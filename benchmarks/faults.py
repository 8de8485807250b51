"""Inject faults into training runs: kills, signals, full disks, damaged checkpoints, NaNs.

    python benchmarks/faults.py            # make faults; about ten minutes on two cores
    python benchmarks/faults.py --quick --only R1 R6 --out faults.json

Writes `results/faults.json` and RELIABILITY.md, or with `--out` that file only. The exit code is 1
if anything did not hold.
"""

from __future__ import annotations

import os

# before torch is imported; results are bit-identical for the same number of threads only
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import reliability
from engine_faults.checkpoints import damaged_checkpoints, folder_taken, full_disk
from engine_faults.kills import kill_anywhere, stop_signals
from engine_faults.ranks import not_finite, sharded, world_sizes
from engine_faults.runs import Lab
from record import record

FAULTS = {  # function, number of trials, number with --quick
    "R1": (kill_anywhere, 50, 3),
    "R2": (stop_signals, 20, 2),
    "R3": (full_disk, 10, 1),
    "R4": (damaged_checkpoints, 100, 10),
    "R5": (folder_taken, 2, 1),
    "R6": (world_sizes, 4, 1),
    "R7": (sharded, 4, 1),
    "N1": (not_finite, 22, 2),
}


def main() -> int:
    """Run the selected faults and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="few trials, as in the tests",
    )
    parser.add_argument(
        "--only",
        nargs="*",
        choices=FAULTS,
        default=list(FAULTS),
        help="faults to run; all by default",
    )
    parser.add_argument("--out", type=Path, help="file for the results")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="faults_") as folder:
        lab = Lab(Path(folder))
        for name in arguments.only:
            inject, full, quick = FAULTS[name]
            started = time.monotonic()
            result = inject(lab, quick if arguments.quick else full)
            row = {**asdict(result), "seconds": round(time.monotonic() - started)}
            held = f"{result.held} of {result.trials} held"
            print(f"{name}: {held}, {row['seconds']} s, {result.figures}", flush=True)
            rows.append(row)
    path = record(
        "faults", {"command": " ".join(["python", *sys.argv]), "faults": rows}, arguments.out
    )
    if arguments.out is None:
        reliability.PAGE.write_text(reliability.page(reliability.results()))
    print(path)
    return int(any(row["held"] != row["trials"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
