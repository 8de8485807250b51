"""The table of docs/finetuning.md on real clips and the results that it shows."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACES = ("gate", "rusty_bridge", "turquoise_bridge", "other")


def test_the_table_shows_the_recorded_scores() -> None:
    results = json.loads((ROOT / "benchmarks/results/finetune_real.json").read_text())
    page = (ROOT / "docs/finetuning.md").read_text()
    assert [method["method"] for method in results["methods"]] == ["scratch", "1600 steps"]
    for method in results["methods"]:
        cells = []
        for metric in ("macro_f1", "top1"):
            low, high = method[metric]["interval"]
            cells.append(f"{method[metric]['mean']} ({low}–{high})")
        cells += [str(method["macro_f1 by place"][place]) for place in PLACES]
        assert f"| {' | '.join(cells)} |" in page
