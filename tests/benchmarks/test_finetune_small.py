"""The table of docs/finetuning.md and the results that it shows; the drawn lists."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean

import finetune_small

ROOT = Path(__file__).parents[2]


def test_the_table_shows_the_recorded_results() -> None:
    rows = json.loads((ROOT / "benchmarks/results/finetune_small.json").read_text())["rows"]
    page = (ROOT / "docs/finetuning.md").read_text()
    assert rows
    for row in rows:
        cells = [
            f"{mean(row['top1'][method]):.1f} "
            f"({', '.join(f'{score:.1f}' for score in row['top1'][method])})"
            for method in finetune_small.METHODS
        ]
        assert f"| {row['clips']} | {' | '.join(cells)} |" in page


def test_the_page_shows_what_few_validation_videos_chose() -> None:
    results = json.loads((ROOT / "benchmarks/results/finetune_validation.json").read_text())
    page = (ROOT / "docs/finetuning.md").read_text()
    for found, last_minus_best in (
        (results, {"mean": 4.7, "interval": [2.7, 6.8]}),
        (results["80 videos"], {"mean": 3.4, "interval": [1.2, 5.6]}),
    ):
        for scores in found["top1"].values():
            text = f"{mean(scores):.1f} ({', '.join(f'{score:.1f}' for score in scores)})"
            assert f"| {text} |" in page
        assert found["differences"]["last minus best"] == last_minus_best


def test_each_seed_draws_the_same_number_of_videos_of_each_class(tmp_path: Path) -> None:
    lines = [f"videos/{number}.mp4 {number % 3}" for number in range(30)]
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    drawn = [
        finetune_small.draw_list(tmp_path, tmp_path / f"{attempt}", 2, seed).read_text()
        for attempt, seed in enumerate((0, 0, 1))
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert [line.split()[1] for line in drawn[0].splitlines()] == ["0", "0", "1", "1", "2", "2"]
