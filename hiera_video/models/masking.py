"""Random masks of mask units, and the hidden tokens that the decoder predicts.

Every shape is fixed by the ratios and never depends on the draws, so graphs can be compiled.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hiera_video.errors import ConfigError
from hiera_video.models.layout import HieraConfig
from hiera_video.models.registry import num_visible


def random_keep(
    batch: int,
    units: int,
    mask_ratio: float,
    generators: torch.Generator | Sequence[torch.Generator] | None = None,
    *,
    tube_frames: int = 1,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw random masks with `num_visible(units, mask_ratio)` visible units in each row.

    Args:
        batch: Number of clips B.
        units: Number of mask units of a clip.
        mask_ratio: Share of hidden units, between 0 and 1.
        generators: One generator for the batch, or one per clip, which makes a clip's mask
            independent of its batch; torch's global generator by default.
        tube_frames: Number of unit frames that share one spatial mask. 1 masks units anywhere in
            space and time (the Hiera paper); all unit frames of a clip give tubes (VideoMAE,
            arXiv 2203.12602).
        device: Device of the result.

    Returns:
        keep [B, units], bool, True = visible.

    Raises:
        ConfigError: If the ratio leaves nothing visible or nothing hidden, `units` is not a
            multiple of `tube_frames`, or the number of generators is not `batch`.
    """
    if units % tube_frames:
        raise ConfigError(f"{units} units cannot be split into tubes of {tube_frames} frames")
    places = units // tube_frames
    visible = num_visible(places, mask_ratio)
    if generators is None:
        noise = torch.rand(batch, places, device=device)
    elif isinstance(generators, torch.Generator):
        noise = torch.rand(batch, places, generator=generators, device=generators.device)
    else:
        if len(generators) != batch:
            raise ConfigError(
                f"{len(generators)} generators for {batch} clips: pass one per clip, or one for "
                "the batch"
            )
        noise = torch.stack(
            [torch.rand(places, generator=one, device=one.device) for one in generators]
        )
    keep = noise.argsort(dim=1).argsort(dim=1) < visible  # the smallest `visible` draws of a clip
    keep = keep.repeat(1, tube_frames)
    return keep if device is None else keep.to(device)


def running_cells(config: HieraConfig, unit_tokens: Tensor, share: float) -> Tensor:
    """Choose the same share of tokens in every unit, at places that move round the unit over time.

    With 2x2 tokens a unit and share 0.5, at t = 0, 1, 2, 3:

        # #    . #    . .    # .
        . .    . #    # #    # .

    This is running cell masking (MAR, arXiv 2207.11660), which VideoMAE V2 applies to the decoder
    (arXiv 2303.16727).

    Args:
        config: Configuration that fixes the grid of units.
        unit_tokens: [units, tokens], positions of each unit's tokens in the final grid.
        share: Share of a unit's tokens to choose.

    Returns:
        [units, chosen tokens], positions in the final grid.
    """
    tokens = unit_tokens.shape[1]
    if tokens < 2:
        raise ConfigError(
            "mae.decoder_tokens='running_cell': each unit has a single token left; use 'random' or "
            "'all'"
        )
    rows, columns = config.unit_rest[-2:]
    path = [
        time * rows * columns + row * columns + (column if row % 2 == 0 else columns - 1 - column)
        for time in range(tokens // (rows * columns))
        for row in range(rows)
        for column in range(columns)
    ]
    chosen = max(1, round(tokens * share))
    units_per_frame = config.unit_grid[-2] * config.unit_grid[-1]
    places = [
        [path[(unit // units_per_frame + step) % tokens] for step in range(chosen)]
        for unit in range(config.num_units)
    ]
    return unit_tokens.gather(1, torch.tensor(places, device=unit_tokens.device))


def choose_hidden_tokens(masked: Tensor, count: int, draws: Tensor) -> Tensor:
    """Choose the `count` hidden tokens with the smallest draws, as ascending positions [B, count].

    Args:
        masked: [B, N] bool, True = hidden.
        count: Number of tokens to choose in each clip.
        draws: [B, N], uniform in [0, 1).
    """
    return draws.masked_fill(~masked, 2.0).argsort(dim=1)[:, :count].sort(dim=1).values
