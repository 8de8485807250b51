"""The faults of RELIABILITY.md, with few trials each."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    out = tmp_path_factory.mktemp("faults") / "faults.json"
    command = [sys.executable, str(BENCHMARKS / "faults.py"), "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600)
    assert out.exists(), done.stdout + done.stderr
    return {row["id"]: row for row in json.loads(out.read_text())["faults"]}


@pytest.mark.fault
@pytest.mark.parametrize("fault", ["R1", "R2", "R3", "R4", "R5", "R6", "R7", "N1"])
def test_fault(results: dict[str, dict[str, Any]], fault: str) -> None:
    row = results[fault]
    assert row["trials"] > 0 and row["held"] == row["trials"], row["failures"]


def test_the_page_is_generated_from_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("reliability")
    found = module.results()
    assert module.PAGE.read_text() == module.page(found)
    assert all(row["held"] == row["trials"] for result in found for row in result["faults"])
