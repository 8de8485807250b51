"""The comparison of two runs as one HTML page without scripts or network access."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiera_video.eval.compare import Comparison
from hiera_video.eval.report import data_url
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.pages import render_page
from hiera_video.viz.plots import compare_curves


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """One of the two runs."""

    name: str
    metrics: Sequence[dict[str, Any]]
    """Rows of its `metrics.jsonl`; empty where it was not trained here."""
    reconstructions: bytes | None
    """PNG of the masked pre-training that it started from."""


def write_comparison(
    path: Path, comparison: Comparison, runs: tuple[ComparedRun, ComparedRun]
) -> None:
    """Write the page: both accuracies, their difference, both curves, and reconstructions."""
    html = render_page(
        "hiera_video.eval",
        "compare.html",
        comparison=comparison,
        runs=runs,
        plots=_plots(runs),
        sheets={run.name: data_url(run.reconstructions) for run in runs if run.reconstructions},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, html)


def _plots(runs: tuple[ComparedRun, ComparedRun]) -> dict[str, str]:
    """Return the plots of the metrics that both runs logged, by title."""
    titles = {
        ("train", "loss"): "Training loss",
        ("val", "loss"): "Validation loss",
        ("val", "top1"): "Validation accuracy",
    }
    plots = {}
    for (split, metric), title in titles.items():
        curves = {
            f"{letter}: {run.name}": [
                (row["step"], row[metric])
                for row in run.metrics
                if row["split"] == split and metric in row
            ]
            for letter, run in zip("AB", runs)
        }
        if all(curves.values()):
            plots[title] = data_url(compare_curves(curves, metric))
    return plots
