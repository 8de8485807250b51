"""Plots as PNG bytes, with text large enough for the width of a phone."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hiera_video.utils.text_files import escape_names, printable

SIZE, DPI = (4.6, 3.2), 170
BLUE, ORANGE, GREY = "#3b6fc4", "#d9822b", "#8a94a6"


def loss_curve(rows: Sequence[dict[str, Any]]) -> bytes:
    """Plot the loss over steps, in training and validation.

    Args:
        rows: Rows of `metrics.jsonl`.
    """
    figure, axes = _figure("step", "loss")
    for split, name, colour, marker in (
        ("train", "training", BLUE, ""),
        ("val", "validation", ORANGE, "o"),
    ):
        line = [row for row in rows if row["split"] == split and "loss" in row]
        if line:
            steps, losses = ([row[key] for row in line] for key in ("step", "loss"))
            axes.plot(steps, losses, color=colour, marker=marker, ms=4, label=name)
    axes.legend(frameon=False)
    return _png(figure)


def score_curve(rows: Sequence[dict[str, Any]], score: str) -> bytes:
    """Plot a validation metric over steps.

    Args:
        rows: Rows of `metrics.jsonl`.
        score: Name of the metric, such as `top1`.
    """
    figure, axes = _figure("step", f"{_display_name(score)}, percent")
    line = [row for row in rows if row["split"] == "val" and score in row]
    steps, scores = ([row[key] for row in line] for key in ("step", score))
    axes.plot(steps, scores, color=ORANGE, marker="o", ms=4)
    return _png(figure)


def learning_rate_curve(epochs: Sequence[float], rates: Sequence[float]) -> bytes:
    """Plot the learning rate over epochs."""
    figure, axes = _figure("epoch", "learning rate")
    axes.plot(epochs, rates, color=BLUE)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.set_ylim(bottom=0)
    return _png(figure)


def compare_curves(curves: Mapping[str, Sequence[tuple[int, float]]], metric: str) -> bytes:
    """Plot a metric over steps, with a line for each run.

    Args:
        curves: Name of the run → (step, value) pairs.
        metric: Name of the metric, such as `loss`.
    """
    figure, axes = _figure("step", _display_name(metric))
    for (name, line), colour in zip(curves.items(), (GREY, BLUE, ORANGE)):
        steps, values = zip(*line)
        axes.plot(steps, values, color=colour, marker="o" if len(line) < 60 else "", ms=4)
        axes.lines[-1].set_label(textwrap.shorten(_plain(name), 40, placeholder="…"))
    axes.legend(frameon=False)
    return _png(figure)


def accuracy_by_views(rows: Sequence[dict[str, Any]], score: str) -> bytes:
    """Plot a metric over the number of clips, with a line for each number of crops.

    Args:
        rows: Each with the numbers of `clips` and `crops`, and the metric.
        score: Name of the metric, such as `top1`.
    """
    figure, axes = _figure("clips per video", f"{_display_name(score)}, percent")
    for crops, colour in zip(sorted({row["crops"] for row in rows}), (GREY, BLUE)):
        line = [row for row in rows if row["crops"] == crops]
        clips, scores = ([row[key] for row in line] for key in ("clips", score))
        name = "middle crop" if crops == 1 else f"{crops} crops"
        axes.plot(clips, scores, color=colour, marker="o", label=name)
    axes.set_xticks(sorted({row["clips"] for row in rows}))
    axes.margins(0.08)
    axes.legend(frameon=False)
    return _png(figure)


def calibration_curve(bins: Sequence[dict[str, Any]]) -> bytes:
    """Plot accuracy over confidence; the area of a point shows the number of videos.

    Args:
        bins: Each with mean `confidence` and `accuracy`, as fractions, and the number of `videos`.
    """
    figure, axes = _figure("confidence, percent", "accuracy, percent")
    axes.plot([0, 100], [0, 100], color=GREY, linestyle="--", linewidth=1)
    confidence, accuracy = ([100 * row[key] for row in bins] for key in ("confidence", "accuracy"))
    most = max((row["videos"] for row in bins), default=1)
    areas = [20 + 180 * row["videos"] / most for row in bins]
    axes.plot(confidence, accuracy, color=BLUE, linewidth=1.5)
    axes.scatter(confidence, accuracy, s=areas, color=BLUE, alpha=0.55, linewidth=0)
    axes.set(xlim=(-3, 103), ylim=(-5, 105))
    return _png(figure)


def confusion_matrix(counts: NDArray[np.int64], names: Sequence[str]) -> bytes:
    """Plot a confusion matrix, coloured by the share of each row; small ones show the counts.

    Args:
        counts: [K, K] videos by label (row) and prediction (column).
        names: Name of each class.
    """
    classes = len(counts)
    side = min(0.8 + 0.45 * classes, 14)
    figure = Figure(figsize=(side + 2.2, side), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    # columns have only the class index: names there would double the picture's height
    indices = [str(index) for index in range(classes)]
    axes.set_xticks(range(classes), indices, rotation=90 if classes > 30 else 0)
    labels = [f"{textwrap.fill(_plain(name), 24)}  {index}" for index, name in enumerate(names)]
    axes.set_yticks(range(classes), labels)
    if classes <= 30:
        for row, column in zip(*counts.nonzero()):
            colour = "w" if shares[row, column] > 0.5 else "k"
            text = str(counts[row, column])
            axes.text(column, row, text, ha="center", va="center", color=colour, size=9)
    # constrained layout alone cuts off long names beside a square plot
    return _png(figure, bbox_inches="tight", pad_inches=0.05)


def _figure(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _plain(name: str) -> str:
    """Return a name that matplotlib draws as it is: no mathtext, no control characters."""
    return printable(escape_names(name)).replace("$", r"\$")


def _display_name(score: str) -> str:
    return {"top1": "top-1", "top5": "top-5"}.get(score, score)


def _png(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # a box stands for each character of a name that the font lacks
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None}, **options)
    return buffer.getvalue()
