"""Plot the figures of SPEED.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from speed_rows import NAMES, title

matplotlib.use("agg")  # no screen needed
from matplotlib import pyplot as plt

Row = dict[str, Any]
COLOURS = {
    "reference": "#8a94a6",
    "optim": "#d9822b",
    "timm": "#5fa777",
    "transformers": "#9b6fc4",
    "ours": "#3b6fc4",
}
AXES = {"frames": "frames", "resolution": "pixels of a side", "batch": "clips", "size": "size"}


def draw_speed(rows: Sequence[Row], path: Path) -> None:
    """Plot each implementation's time over ours as bars."""
    figure, axis = plt.subplots(figsize=(7.2, 0.9 + 0.62 * len(rows)), dpi=150)
    labels = []
    for place, row in enumerate(rows):
        names = [
            name
            for name in ("reference", "optim", "timm", "transformers")
            if name in row["times_ours"]
        ]
        height = 0.8 / max(len(names), 1)
        for number, name in enumerate(names):
            ratio = row["times_ours"][name]
            reach = [[ratio["median"] - ratio["least"]], [ratio["most"] - ratio["median"]]]
            at = place - 0.4 + height * (number + 0.5)
            first = name not in labels
            labels.append(name)
            label = NAMES[name] if first else None
            axis.barh(
                at,
                ratio["median"],
                height * 0.9,
                color=COLOURS[name],
                xerr=reach,
                label=label,
                ecolor="#444",
            )
    axis.axvline(1, color=COLOURS["ours"], label="ours")
    axis.set_yticks(range(len(rows)), [title(row["case"]) for row in rows], fontsize=7)
    axis.invert_yaxis()
    axis.set_xlabel("seconds over ours")
    axis.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    save(figure, path)


def points(rows: Sequence[Row], axis: str) -> list[Row]:
    """Return the rows along one axis, with the default values on the other axes."""
    fixed = {"frames": 16, "resolution": 224, "batch": 1, "size": "base"}
    found = [
        row
        for row in rows
        if all(row["case"][key] == value for key, value in fixed.items() if key != axis)
    ]
    found = [row for row in found if row["case"]["mode"] == "model"]
    return found if axis == "size" else sorted(found, key=lambda row: row["case"][axis])


def draw_scaling(rows: Sequence[Row], path: Path) -> None:
    """Plot time and peak memory against each axis."""
    figure, axes = plt.subplots(1, len(AXES), figsize=(11, 2.9), dpi=150)
    for axis, (key, words) in zip(axes, AXES.items()):
        found = points(rows, key)
        places = [str(row["case"][key]).replace("_", "\n") for row in found]
        for name, colour in (("ours", "#3b6fc4"), ("floor", "#8a94a6"), ("attention", "#d9822b")):
            axis.plot(
                places,
                [row["seconds"][name]["median"] for row in found],
                marker="o",
                ms=3,
                color=colour,
                label=name.replace("floor", "lower bound"),
            )
        axis.set_xlabel(words)
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=7)
        beside = axis.twinx()
        beside.plot(
            places,
            [row["memory"].get("peak") for row in found],
            ls=":",
            color="#5fa777",
            label="peak memory",
        )
        beside.set_ylim(bottom=0)
        beside.tick_params(labelsize=7)
    axes[0].set_ylabel("seconds")
    axes[0].legend(fontsize=7)
    beside.set_ylabel("peak GB, dotted")
    save(figure, path)


def draw_half(result: Row, path: Path) -> None:
    """Plot the loss with all and with half of the decoder's tokens."""
    figure, axis = plt.subplots(figsize=(5.2, 3.2), dpi=150)
    for (_, run), colour in zip(result["runs"].items(), ("#3b6fc4", "#d9822b")):
        axis.plot(
            [p["step"] for p in run["train"]],
            [p["loss"] for p in run["train"]],
            color=colour,
            alpha=0.35,
            lw=1,
        )
        held = run["val"]
        axis.plot(
            [p["step"] for p in held],
            [p["loss"] for p in held],
            color=colour,
            marker="o",
            ms=3,
            label=run["what"],
        )
    axis.set_xlabel("step")
    axis.set_ylabel("validation loss; pale: training loss")
    axis.legend(fontsize=8, title="decoded", title_fontsize=8)
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
