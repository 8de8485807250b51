"""Pictures of numbers, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

matplotlib.use("agg")  # no screen needed


def training_curves(rows: Sequence[dict[str, Any]], score: str) -> bytes:
    """Loss of training, and the validation's `score`, over steps. `rows`: those of `metrics.jsonl`."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    loss_axis, score_axis = figure.subplots(1, 2)
    train = [row for row in rows if row["split"] == "train"]
    loss_axis.plot([row["step"] for row in train], [row["loss"] for row in train], color="tab:blue")
    loss_axis.set(xlabel="step", ylabel="training loss")
    val = [row for row in rows if row["split"] == "val" and score in row]
    score_axis.plot([row["step"] for row in val], [row[score] for row in val], color="tab:orange", marker="o", ms=3)
    score_axis.set(xlabel="step", ylabel=f"validation {score}")
    for axis in (loss_axis, score_axis):
        axis.grid(alpha=0.3)
    return _png(figure)


def confusion_matrix(counts: NDArray[np.int64], names: Sequence[str]) -> bytes:
    """Rows: the label; columns: the answer; shares of each row. Counts are written where there is room."""
    classes = len(counts)
    side = min(3.5 + 0.45 * classes, 14)
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    axis.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    axis.set(xlabel="answer", ylabel="label")
    if classes <= 30:
        axis.set_xticks(range(classes), names, rotation=90)
        axis.set_yticks(range(classes), names)
        for row, column in zip(*counts.nonzero()):
            dark = counts[row, column] > counts[row].sum() / 2
            axis.text(
                column, row, str(counts[row, column]), ha="center", va="center", color="w" if dark else "k", size=8
            )
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
