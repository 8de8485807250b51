"""Run the default tests with each supported Python, and with the oldest and newest torch.

    python benchmarks/test_matrix.py                 # `make test-matrix`, an hour on one core
    python benchmarks/test_matrix.py --only 3.13     # one environment

uv makes each environment in `.matrix` from the newest packages that pyproject.toml allows, and it
is removed after its tests unless they failed. Writes `results/test_matrix.json` after each, and
replaces only the rows that it measures again. Exit code 1 if a test failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from record import RESULTS, record

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".matrix"
OLDEST = ("torch==2.10.*", "torchvision==0.25.*")
"""The oldest that pyproject.toml allows."""
CASES: dict[str, tuple[str, ...]] = {
    "3.11-oldest-torch": OLDEST,
    "3.11": (),
    "3.12": (),
    "3.13": (),
}
"""Names, which begin with the version of Python, and the requirements beside pyproject.toml's."""
TABLE = "tests/benchmarks/test_test_matrix.py::test_the_table_shows_the_recorded_results"
"""Fails from the first new row until docs/installation.md has it, so it is left out here."""
PACKAGES = ("torch", "torchvision", "av", "numpy")
VERSIONS = f"""
import importlib.metadata, json, platform
versions = {{name: importlib.metadata.version(name) for name in {PACKAGES}}}
print(json.dumps({{"python": platform.python_version(), **versions}}))
"""


def main() -> int:
    """Test the environments in turn and record each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    path = RESULTS / "test_matrix.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else {}
    chosen = parser.parse_args().only
    for name in chosen:
        print(f"{name}: {' '.join(CASES[name]) or 'newest torch'}", flush=True)
        rows[name] = measure(FOLDER / name, name.partition("-")[0], CASES[name])
        ordered = {case: rows[case] for case in CASES if case in rows}
        record("test_matrix", {"command": "make test-matrix", "rows": ordered})
        print(f"{name}: {rows[name]}", flush=True)
    return int(any(rows[name]["failed"] for name in chosen))


def measure(venv: Path, python: str, requirements: tuple[str, ...]) -> dict[str, Any]:
    """Return versions and the counts of tests in a new environment."""
    make_environment(venv, python, requirements)
    interpreter = venv / "bin" / "python"
    said = subprocess.run([interpreter, "-c", VERSIONS], check=True, stdout=-1, text=True).stdout
    report = venv / "tests.xml"
    started = time.monotonic()
    options = [f"--junitxml={report}", "-p", "no:cacheprovider", "--deselect", TABLE]
    subprocess.run(
        [interpreter, "-m", "pytest", *options],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    counts = count_tests(report)
    if not counts["failed"]:
        shutil.rmtree(venv)
    seconds = round(time.monotonic() - started)
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    return {**json.loads(said), **counts, "seconds": seconds, "date": date}


def make_environment(venv: Path, python: str, requirements: tuple[str, ...]) -> None:
    """Make a virtual environment with the package, editable, and what its tests need."""
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", python, venv], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", venv / "bin" / "python"]
    subprocess.run([*install, *requirements, "--editable", ".[dev]"], cwd=ROOT, check=True)


def count_tests(report: Path) -> dict[str, int]:
    """Return the numbers of tests that passed, were skipped and failed, from pytest's XML."""
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    total, skipped, failures, errors = (
        sum(int(suite.get(key, 0)) for suite in suites)
        for key in ("tests", "skipped", "failures", "errors")
    )
    failed = failures + errors
    return {"passed": total - skipped - failed, "skipped": skipped, "failed": failed}


if __name__ == "__main__":
    sys.exit(main())
