"""Which mask units are hidden from the encoder, and which hidden tokens the decoder predicts. Every shape is known
before the data is: counts are fixed by the ratios, never by what was drawn."""

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
    """Draw keep [batch, units] bool, True = visible; `num_visible(units, mask_ratio)` units are visible in each row.

    generators: one for the batch, or one a clip (so that a clip's mask does not depend on its neighbours); torch's
    global generator where not given. tube_frames: how many unit frames share one spatial mask; 1 hides any unit in
    space and time (the paper), the clip's unit frames give tubes (VideoMAE, arXiv 2203.12602)."""
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
                f"{len(generators)} generators for {batch} clips: give one each, or one for the batch"
            )
        noise = torch.stack(
            [torch.rand(places, generator=one, device=one.device) for one in generators]
        )
    keep = noise.argsort(dim=1).argsort(dim=1) < visible  # a clip's `visible` smallest draws
    keep = keep.repeat(1, tube_frames)
    return keep if device is None else keep.to(device)


def running_cells(config: HieraConfig, unit_tokens: Tensor, share: float) -> Tensor:
    """Tokens of each unit that the decoder predicts, [units, n]: the same share of every unit, at places that walk
    round the unit as time goes on. With 2x2 tokens a unit and a share of one half, at t = 0, 1, 2, 3:

        # #    . #    . .    # .
        . .    . #    # #    # .

    (MAR's cell running masking, arXiv 2207.11660, as VideoMAE V2 uses it for the decoder, arXiv 2303.16727.)"""
    tokens = unit_tokens.shape[1]
    if tokens < 2:
        raise ConfigError(
            "mae.decoder_tokens='running_cell': units have one token left each; use 'random' or 'all'"
        )
    rows, columns = config.unit_rest[-2:]
    walk = [
        time * rows * columns + row * columns + (column if row % 2 == 0 else columns - 1 - column)
        for time in range(tokens // (rows * columns))
        for row in range(rows)
        for column in range(columns)
    ]
    chosen = max(1, round(tokens * share))
    units_per_frame = config.unit_grid[-2] * config.unit_grid[-1]
    places = [
        [walk[(unit // units_per_frame + step) % tokens] for step in range(chosen)]
        for unit in range(config.num_units)
    ]
    return unit_tokens.gather(1, torch.tensor(places, device=unit_tokens.device))


def random_hidden(masked: Tensor, count: int, draws: Tensor) -> Tensor:
    """`count` of the hidden tokens of each clip, ascending [B, count]; masked and draws (uniform) are [B, tokens]."""
    return draws.masked_fill(~masked, 2.0).argsort(dim=1)[:, :count].sort(dim=1).values
