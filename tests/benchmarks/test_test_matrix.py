"""The environments of `make test-matrix`, and how their tests are counted."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import test_matrix

ROOT = Path(__file__).parents[2]


def test_the_oldest_torch_is_the_oldest_allowed() -> None:
    allowed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    oldest = [
        requirement.replace("==", ">=").removesuffix(".*") for requirement in test_matrix.OLDEST
    ]
    assert oldest == ["torch>=2.10", "torchvision>=0.25"]
    assert set(oldest) <= set(allowed)


def test_counts_of_a_report(tmp_path: Path) -> None:
    report = tmp_path / "tests.xml"
    report.write_text(
        '<testsuites><testsuite tests="9" skipped="2" failures="1" errors="3"/></testsuites>'
    )
    assert test_matrix.count_tests(report) == {"passed": 3, "skipped": 2, "failed": 4}


def test_the_table_shows_the_recorded_results() -> None:
    rows = json.loads((ROOT / "benchmarks/results/test_matrix.json").read_text())["rows"]
    page = (ROOT / "docs/installation.md").read_text()
    keys = ("python", "torch", "torchvision", "av", "passed", "skipped", "failed")
    assert rows
    for row in rows.values():
        assert f"| {' | '.join(str(row[key]) for key in keys)} |" in page
