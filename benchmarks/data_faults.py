"""Faults of the data layer (V1–V5, W1, W2) at their full counts: the tests of tests/data with FAULTS=full.

    python benchmarks/data_faults.py          # part of make faults; about five minutes on two cores

Writes `results/data_faults.json`, which RELIABILITY.md is made from. Exit code 1 where anything did not hold.
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
FILES = ("test_corpus.py", "test_backends.py", "test_pool.py", "test_loader.py")
# id: (tests, trials in each, fault, how, what must hold)
FAULTS: dict[str, tuple[tuple[str, ...], int, str, str, str]] = {
    "V1": (
        ("test_every_frame_is_exact", "test_broken_files_have_a_reason"), 1,
        "every kind of video", "over 70 generated files, healthy, odd and broken; pixels spell the frame number",
        "healthy and odd: every frame exact, in order and at random, from memory and by seeking; broken: a reason from a "
        "fixed list within 5 s and 500 MB",
    ),
    "V2": (
        ("test_backends_agree", "test_guards_stand"), 1,
        "backends agree", "the same files with decord and, where installed, torchcodec",
        "the same frames, the same way up, or a refusal that is listed",
    ),
    "V3": (
        ("test_fuzzed_files",), 10_000,
        "fuzz", "seeded byte mutations of the healthy files", "no crash, none over 5 s or 500 MB",
    ),
    "V4": (
        ("test_opening_leaves_nothing_behind",), 1_500,
        "leak", "opens and reads, a third of broken files", "at most 1 kB each; descriptors and threads constant",
    ),
    "V5": (
        ("test_a_hung_decoder_is_killed",), 1,
        "hung decoder", "a decoder that holds the interpreter's lock and ignores SIGTERM",
        "killed within deadline + 2 s, file quarantined, run goes on, a restart sees the same batches",
    ),
    "W1": (
        ("test_killed_workers_change_no_loss",), 1,
        "worker killed", "SIGKILL of one of two workers, four times a run", "losses bit-identical to an undisturbed run",
    ),
    "W2": (
        ("test_batches_do_not_depend_on_workers", "test_spawned_workers_see_the_same"), 1,
        "other workers", "0, 1, 2 and 4 workers, fork and spawn", "the same hash of every batch",
    ),
}  # fmt: skip


def main() -> int:
    """Run the tests, count what held."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            f"--junitxml={report}",
            *(f"tests/data/{name}" for name in FILES),
        ]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "FAULTS": "full"}, check=False)
        cases = [
            (
                case.attrib["name"],
                float(case.attrib["time"]),
                case.find("failure") is None and case.find("error") is None,
            )
            for case in ET.parse(report).iter("testcase")
        ]
    rows: list[dict[str, Any]] = []
    for name, (tests, each, fault, how, must_hold) in FAULTS.items():
        mine = [case for case in cases if case[0].startswith(tests)]
        held = sum(ok for _, _, ok in mine) * each
        facts = {"id": name, "fault": fault, "how": how, "must_hold": must_hold}
        failures = [case for case, _, ok in mine if not ok]
        seconds = round(sum(time for _, time, _ in mine))
        rows.append(
            {
                **facts,
                "trials": len(mine) * each,
                "held": held,
                "figures": {},
                "failures": failures,
                "seconds": seconds,
            }
        )
        print(f"{name}: {held} of {len(mine) * each} held, {seconds} s")
    print(record("data_faults", {"command": "python benchmarks/data_faults.py", "faults": rows}))
    reliability.PAGE.write_text(reliability.page(reliability.results()))
    return int(any(row["held"] != row["trials"] or not row["trials"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
