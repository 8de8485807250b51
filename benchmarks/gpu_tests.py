"""Run the tests that need a GPU, and read what pytest reports."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gpu_programs import ROOT, TAIL, ProgramError, StoppedError, launch
from gpu_timing import Setup


def run_tests(setup: Setup, work: Path, timeout: float, keyword: str = "") -> dict[str, Any]:
    """Run the tests marked `gpu`; a crash of theirs ends only their process.

    Returns:
        The number of `passed`, `failed`, `skipped` and, where time ran out, `not_run` tests, the
        `failures` with their messages, the reasons of `skips`, and the end of the output.

    Raises:
        ProgramError: pytest could not run the tests.
    """
    junit = work / "junit.xml"
    junit.unlink(missing_ok=True)
    paths = [
        path.relative_to(ROOT)
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "mark.gpu" in path.read_text(encoding="utf-8")
    ]
    # compilation takes most of the time
    files = list(map(str, sorted(paths, key=lambda path: "compiled" in path.name)))
    options = ["-m", "gpu", "-v", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    options += ["--tb=short", "-rfE", f"--junitxml={junit}", "--durations=8"]
    options += ["-k", keyword] if keyword else []
    if importlib.util.find_spec("pytest_timeout"):
        options.append("--timeout=150")
    if setup.on_gpu and importlib.util.find_spec("xdist"):
        options += ["-n", "4", "--dist", "worksteal"]
    # threads that spin slow each other down by much where processes share the cores
    threads = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}
    environ = {"HIERA_TEST_DEVICE": setup.device.type, **threads}
    try:
        done = launch(["-m", "pytest", *options, *files], setup, timeout, environ)
    except StoppedError as error:
        lines = error.output.splitlines()
        return {**read_progress(lines), "exit_code": None, "output": lines[-20:]}
    if done.returncode not in (0, 1):
        raise ProgramError(f"pytest: exit code {done.returncode}\n{done.stdout[-TAIL:]}")
    found = read_junit(junit)
    lines = done.stdout[-2 * TAIL :].splitlines()
    return {**found, "exit_code": done.returncode, "output": lines}


def read_progress(lines: Sequence[str]) -> dict[str, Any]:
    """Read what `pytest -v` had printed when it was stopped, before it wrote a report.

    pytest-xdist names the tests in other places of a line.
    """
    outcomes: dict[str, list[str]] = {"PASSED": [], "FAILED": [], "SKIPPED": [], "ERROR": []}
    total = 0
    for line in lines:
        done = re.search(r"\b(PASSED|FAILED|SKIPPED|ERROR)\b", line)
        test = re.search(r"\S+\.py::\S.*?(?= (?:PASSED|FAILED|SKIPPED|ERROR)|$)", line)
        if done and test:
            outcomes[done[1]].append(test[0].strip())
        elif count := re.search(r"\[(\d+) items?\]|/ (\d+) selected|collected (\d+) items?$", line):
            total = int(next(filter(None, count.groups())))
    failures = [*outcomes["FAILED"], *outcomes["ERROR"]]
    passed, skipped = len(outcomes["PASSED"]), len(outcomes["SKIPPED"])
    return {
        "passed": passed,
        "failed": len(failures),
        "skipped": skipped,
        "not_run": max(1, total - passed - skipped - len(failures)),
        "failures": {test: ["the report was not written"] for test in failures},
    }


def read_junit(path: Path) -> dict[str, Any]:
    """Read pytest's report of a run."""
    found: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0, "failures": {}, "skips": {}}
    for case in ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname', '').removeprefix('tests.')}::{case.get('name')}"
        problem = next((child for child in case if child.tag in ("failure", "error")), None)
        skipped = case.find("skipped")
        if problem is not None:
            found["failed"] += 1
            text = f"{problem.get('message') or ''}\n{(problem.text or '')[-1500:]}"
            found["failures"][name] = text.splitlines()
        elif skipped is not None:
            found["skipped"] += 1
            found["skips"][name] = (skipped.get("message") or "")[:200]
        else:
            found["passed"] += 1
    return found
