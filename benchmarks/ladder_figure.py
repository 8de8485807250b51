"""Draw docs/ladder.png: what hidden mask units reach, by kernels and windows, computed.

    python benchmarks/ladder_figure.py            # a minute

The paper's figures 2 and 4 (arXiv 2306.00989), redrawn from the models: random weights and tokens,
two fillings of the hidden units, and the largest change of each visible token.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from torch import Tensor

from hiera_video.models.build import build_model
from hiera_video.models.mvit.config import LadderConfig, ladder_table
from hiera_video.models.mvit.leaks import token_leaks
from hiera_video.models.mvit.pooling import TokenPool
from hiera_video.models.registry import config_for
from hiera_video.models.tokens import UnitOrder, gather_rows, indices_of_true

SIZE, UNITS = (192, 192), 6
HIDDEN, LEAK, CLEAN, BORDER = "#b9bec6", "#d1495b", "#8fc1b5", "#30343f"
PICTURE = Path(__file__).parents[1] / "docs" / "ladder.png"


def window_leaks(keep: Tensor, *, window: bool) -> Tensor:
    """Return the changes [visible, tokens] after stage 2 of rung f, with units or windows."""
    config = config_for("ladder_window_tiny_224", input_size=SIZE)
    assert isinstance(config, LadderConfig)
    torch.manual_seed(0)
    model = build_model(replace(config, window=window)).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    return token_leaks(model, torch.randn(1, 3, *SIZE), keep)[1][0]  # type: ignore[arg-type]


@torch.no_grad()
def kernel_leaks(keep: Tensor, *, separate: bool) -> Tensor:
    """Return the changes [visible, tokens] after one 3×3 convolution of stage 1."""
    config = config_for("mvitv2_tiny_224", input_size=SIZE)
    assert isinstance(config, LadderConfig)
    config = replace(config, separate_units=separate)
    pool = TokenPool(config, UnitOrder(config), ladder_table(config)[0], (1, 1), channels=96)
    tokens = torch.randn(2, UNITS**2, 64, 96)
    tokens[1, keep[0]] = tokens[0, keep[0]]
    one, other = pool(tokens.flatten(1, 2).unsqueeze(2)).view(2, UNITS**2, 64, 96)
    changes = (one - other).abs().amax(-1)[None]
    return gather_rows(changes, indices_of_true(keep, int(keep.sum())))[0]


def draw(axes: Axes, keep: Tensor, leaks: Tensor, level: int, title: str, window: bool) -> None:
    """Draw the tokens of every unit: hidden, unchanged or changed, and the windows."""
    order = UnitOrder(config_for("ladder_f_tiny_224", input_size=SIZE))
    state = torch.full((1, UNITS**2, leaks.shape[1], 1), -1.0)
    state[0, keep[0], :, 0] = (leaks > 0).float()
    grid = order.reroll(state, level)[0, ..., 0]
    side = len(grid) // UNITS
    colours = ListedColormap([HIDDEN, CLEAN, LEAK])
    axes.pcolormesh(grid.numpy(), cmap=colours, vmin=-1, vmax=1, edgecolors="white", lw=0.4)
    for line in range(0, len(grid) + 1, side):
        axes.plot([0, len(grid)], [line, line], color=BORDER, lw=1)
        axes.plot([line, line], [0, len(grid)], color=BORDER, lw=1)
    if window:
        for line in range(0, len(grid) + 1, 8):
            axes.plot([0, len(grid)], [line, line], color="black", lw=4, clip_on=False)
            axes.plot([line, line], [0, len(grid)], color="black", lw=4, clip_on=False)
    axes.set(xlim=(0, len(grid)), ylim=(len(grid), 0), xticks=[], yticks=[], aspect="equal")
    share = float((leaks > 0).float().mean())
    axes.set_title(f"{title}\n{share:.0%} of visible tokens change", fontsize=10)
    axes.set_frame_on(False)


def main() -> None:
    """Write docs/ladder.png."""
    torch.manual_seed(3)
    keep = torch.rand(1, UNITS**2).argsort(1) < UNITS**2 * 2 // 5
    figure, panels = plt.subplots(1, 4, figsize=(14, 4.6))
    cases = (
        ("3×3 kernels over the clip, stage 1", kernel_leaks(keep, separate=False), 0, False),
        ("separate and pad, stage 1", kernel_leaks(keep, separate=True), 0, False),
        ("windows of 8×8 tokens, stage 2", window_leaks(keep, window=True), 1, True),
        ("mask-unit attention, stage 2", window_leaks(keep, window=False), 1, False),
    )
    for axes, (title, leaks, level, window) in zip(panels, cases):
        draw(axes, keep, leaks, level, title, window)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in (HIDDEN, CLEAN, LEAK)]
    labels = ["hidden token", "visible token, unchanged", "visible token that hidden ones changed"]
    figure.legend(handles, labels, loc="lower center", ncol=3, frameon=False, fontsize=10)
    figure.tight_layout(rect=(0, 0.07, 1, 0.97))
    figure.savefig(PICTURE, dpi=90)


if __name__ == "__main__":
    main()
