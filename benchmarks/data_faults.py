"""Faults of the data layer (V1–V5, W1–W3, F2 of RELIABILITY.md): its tests at full counts.

    python benchmarks/data_faults.py      # part of `make faults`; about five minutes on two cores

Runs the tests below with FAULTS=full, and writes `results/data_faults.json` and RELIABILITY.md. The
exit code is 1 if a test failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import reliability
from record import record

ROOT = Path(__file__).parents[1]
FILES = (
    "tests/video/test_corpus.py",
    "tests/video/test_third_party.py",
    "tests/data/loading/test_faults.py",
    "tests/data/loading/test_loader.py",
    "tests/data/loading/test_storage.py",
    "tests/data/prepare/test_scan.py",
)
PASSING_FAULTS = (
    "test_a_folder_that_returns",
    "test_an_empty_mount_point",
    "test_lack_of_file_descriptors",
    "test_a_bad_sector",
    "test_short_memory",
    "test_storage_that",
    "test_a_disk_that_blocks_all_workers",
)
FAULTS: dict[str, tuple[tuple[str, ...], int]] = {
    "V1": (("test_every_frame_is_exact", "test_unreadable_files_"), 1),
    "V2": (("test_backends_agree", "test_unsafe_files_never_reach_the_other_decoders"), 1),
    "V3": (("test_fuzzed_files",), 10_000),
    "V4": (("test_opening_leaks",), 1_500),
    "V5": (("test_a_hung_decoder_is_killed",), 1),
    "W1": (("test_killed_workers_change_no_loss",), 1),
    "W2": (("test_batches_do_not_depend_on_workers", "test_spawned_workers_yield_the_same"), 1),
    "W3": (("test_a_process_group_that_is_stopped",), 1),
    "F2": (PASSING_FAULTS, 1),
}
"""Fault → prefixes of its tests' names, and the trials in each test."""


def main() -> int:
    """Run the tests and record the results."""
    cases = run_tests()
    rows: list[dict[str, Any]] = []
    for name, (prefixes, trials) in FAULTS.items():
        chosen = [case for case in cases if case[0].startswith(prefixes)]
        row = {
            "id": name,
            "trials": len(chosen) * trials,
            "held": sum(passed for _, _, passed in chosen) * trials,
            "figures": {},
            "failures": [case for case, _, passed in chosen if not passed],
            "seconds": round(sum(seconds for _, seconds, _ in chosen)),
        }
        rows.append(row)
        print(f"{name}: {row['held']} of {row['trials']} passed, {row['seconds']} s")
    print(record("data_faults", {"command": "python benchmarks/data_faults.py", "faults": rows}))
    reliability.PAGE.write_text(reliability.page(reliability.results()))
    return int(any(row["held"] != row["trials"] or not row["trials"] for row in rows))


def run_tests() -> list[tuple[str, float, bool]]:
    """Run the test files in all tiers and return name, seconds and success of each test."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-m", "", f"--junitxml={report}", *FILES]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "FAULTS": "full"}, check=False)
        return [
            (
                case.attrib["name"],
                float(case.attrib["time"]),
                case.find("failure") is None and case.find("error") is None,
            )
            for case in ET.parse(report).iter("testcase")
        ]


if __name__ == "__main__":
    sys.exit(main())
