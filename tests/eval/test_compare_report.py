"""The page that compares two runs: its numbers, curves and pictures."""

from __future__ import annotations

import re
from pathlib import Path

from hiera_video.eval.compare import ClassChange, Comparison
from hiera_video.eval.compare_report import ComparedRun, write_comparison

COMPARISON = Comparison(
    videos=320,
    left_out=0,
    top1=(61.25, 80.0),
    top1_intervals=((55.9, 66.6), (75.6, 84.4)),
    difference=18.75,
    interval=(12.8, 24.7),
    only_first=20,
    only_second=80,
    p_value=1.1e-9,
    classes=[ClassChange(name="<turn>", videos=40, change=25.0)],
)


def page_of(path: Path, *runs: ComparedRun) -> str:
    write_comparison(path, COMPARISON, (runs[0], runs[1]))
    return path.read_text()


def run(name: str, *losses: float, sheet: bytes | None = None) -> ComparedRun:
    metrics = [{"split": "train", "step": step, "loss": loss} for step, loss in enumerate(losses)]
    return ComparedRun(name=name, metrics=metrics, reconstructions=sheet)


def test_numbers_curves_and_pictures(tmp_path: Path) -> None:
    page = page_of(
        tmp_path / "new" / "page.html",
        run("scratch", 2.1, 1.9),
        run("pretrained", 2.0, 1.2, sheet=b"\x89PNG..."),
    )
    text = " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL).split())
    assert "61.2 % A: scratch 95 % interval 55.9–66.6" in text
    assert "80.0 % B: pretrained 95 % interval 75.6–84.4" in text
    assert "+18.8 points of top-1, B − A 95 % interval +12.8 to +24.7" in text
    assert "correct only in A: 20, only in B: 80" in text and "McNemar p = 1.1e-09" in text
    assert "&lt;turn&gt; +25.0 40" in text
    assert "Training loss" in text and "Validation" not in text
    assert text.count("Masked pre-training of") == 1 and "Masked pre-training of pretrained" in text
    assert page.count("data:image/png;base64,") == 2


def test_a_run_that_was_not_trained_here_has_no_curve(tmp_path: Path) -> None:
    page = page_of(tmp_path / "page.html", run("scratch"), run("pretrained", 2.0))
    assert "Training loss" not in page and "data:image" not in page
