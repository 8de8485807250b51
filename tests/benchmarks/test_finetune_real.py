"""The table of docs/finetuning.md on real clips and the results that it shows."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_shows_the_recorded_runs() -> None:
    runs = json.loads((ROOT / "benchmarks/results/finetune_real.json").read_text())["runs"]
    page = (ROOT / "docs/finetuning.md").read_text()
    assert len(runs) >= 4
    for run in runs:
        cells = [run["place"], f"{run['steps']:,}"]
        for metric in ("macro_f1", "top1"):
            low, high = run[f"{metric}_interval"]
            cells.append(f"{run[metric]} ({low}–{high})")
        assert f"| {' | '.join(cells)} |" in page
