"""Rows and ratios of the ladder's benchmark."""

from __future__ import annotations

import json
from pathlib import Path

from ladder import PAPER, relative_speeds, table

ROOT = Path(__file__).parents[2]


def test_speeds_are_relative_to_hiera_in_the_same_round() -> None:
    assert relative_speeds({"hiera": [1.0, 2.0, 3.0], "x": [2.0, 2.0, 12.0]}) == {
        "hiera": {"cpu_seconds": 2.0, "speed": 1.0},
        "x": {"cpu_seconds": 2.0, "speed": 0.5},
    }


def test_the_page_has_the_recorded_rows() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "ladder.json").read_text())
    rows = table(result, "video")
    assert rows in (ROOT / "docs" / "ladder.md").read_text()
    assert (
        rows.splitlines()[0].startswith("| MViTv2 | 213.2 | 361.2 |") and result["paper"] == PAPER
    )
