"""Pictures of numbers, as PNG bytes. Lettered so that they can be read at the width of a phone."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

SIZE, DPI = (4.6, 3.2), 170
BLUE, ORANGE, GREY = "#3b6fc4", "#d9822b", "#8a94a6"


def loss_curve(rows: Sequence[dict[str, Any]]) -> bytes:
    """Loss over steps, in training and, where it was computed, in validation. `rows`: those of `metrics.jsonl`."""
    figure, axis = _plot("step", "loss")
    for split, colour, marker in (("train", BLUE, ""), ("val", ORANGE, "o")):
        line = [row for row in rows if row["split"] == split and "loss" in row]
        if line:
            steps, losses = ([row[key] for row in line] for key in ("step", "loss"))
            axis.plot(
                steps,
                losses,
                color=colour,
                marker=marker,
                ms=4,
                label={"train": "training"}.get(split, "validation"),
            )
    axis.legend(frameon=False)
    return _png(figure)


def score_curve(rows: Sequence[dict[str, Any]], score: str) -> bytes:
    """The validation's `score` over steps."""
    figure, axis = _plot("step", f"{_spoken(score)}, percent")
    val = [row for row in rows if row["split"] == "val" and score in row]
    axis.plot(
        [row["step"] for row in val], [row[score] for row in val], color=ORANGE, marker="o", ms=4
    )
    return _png(figure)


def accuracy_by_views(rows: Sequence[dict[str, Any]], score: str) -> bytes:
    """`score` over the number of clips, a line for each number of crops; rows have `clips`, `crops` and the score."""
    figure, axis = _plot("clips a video", f"{_spoken(score)}, percent")
    for crops, colour in zip(sorted({row["crops"] for row in rows}), (GREY, BLUE)):
        line = [row for row in rows if row["crops"] == crops]
        name = "middle crop" if crops == 1 else f"{crops} crops"
        axis.plot(
            [row["clips"] for row in line],
            [row[score] for row in line],
            color=colour,
            marker="o",
            label=name,
        )
    axis.set_xticks(sorted({row["clips"] for row in rows}))
    axis.margins(0.08)
    axis.legend(frameon=False)
    return _png(figure)


def calibration_curve(bins: Sequence[dict[str, Any]]) -> bytes:
    """Accuracy over confidence; the area of a point is its number of videos; the diagonal is right."""
    figure, axis = _plot("confidence, percent", "right, percent")
    axis.plot([0, 100], [0, 100], color=GREY, linestyle="--", linewidth=1)
    across, up = ([100 * row[key] for row in bins] for key in ("confidence", "accuracy"))
    most = max((row["videos"] for row in bins), default=1)
    axis.plot(across, up, color=BLUE, linewidth=1.5)
    axis.scatter(
        across,
        up,
        s=[20 + 180 * row["videos"] / most for row in bins],
        color=BLUE,
        alpha=0.55,
        linewidth=0,
    )
    axis.set(xlim=(-3, 103), ylim=(-5, 105))
    return _png(figure)


def confusion_matrix(counts: NDArray[np.int64], names: Sequence[str]) -> bytes:
    """Rows: the label; columns: the answer; shares of each row. Counts are written where there is room."""
    classes = len(counts)
    side = min(0.8 + 0.45 * classes, 14)
    figure = Figure(figsize=(side + 2.2, side), layout="constrained")
    axis = figure.subplots()
    axis.imshow(
        counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1
    )
    # across stand the classes' numbers alone: names there would double the picture's height
    axis.set_xticks(
        range(classes), [str(index) for index in range(classes)], rotation=90 if classes > 30 else 0
    )
    axis.set_yticks(
        range(classes), [f"{textwrap.fill(name, 24)}  {index}" for index, name in enumerate(names)]
    )
    if classes <= 30:
        for row, column in zip(*counts.nonzero()):
            dark = counts[row, column] > counts[row].sum() / 2
            axis.text(
                column,
                row,
                str(counts[row, column]),
                ha="center",
                va="center",
                color="w" if dark else "k",
                size=9,
            )
    return _png(figure)


def _plot(across: str, up: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axis = figure.subplots()
    axis.set(xlabel=across, ylabel=up)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def _spoken(score: str) -> str:
    return {"top1": "top-1", "top5": "top-5"}.get(score, score)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
