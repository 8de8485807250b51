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
    """Draw random masks with the same number of visible units in each row; see `num_visible`.

    Args:
        batch: Number of clips B.
        units: Number of mask units of a clip.
        mask_ratio: Share of hidden units, between 0 and 1.
        generators: One generator for the batch, or one per clip, which makes a clip's mask
            independent of its batch; torch's global generator by default.
        tube_frames: Number of unit frames that share one spatial mask. 1 masks units anywhere in
            space and time (the Hiera paper); all unit frames of a clip give tubes (VideoMAE,
            arXiv 2203.12602), of which the number of hidden ones is rounded down as there.
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
    visible = num_visible(places, mask_ratio, floor_hidden=tube_frames > 1)
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

    With 2x2 tokens a unit and share 0.5, at t = 0, 1, 2, 3 of phase 0:

        . #    # #    # .    . .
        # .    . .    . #    # #

    This is the running cell of VideoMAE V2's decoder (arXiv 2303.16727): a queue of hidden and
    decoded places that moves by one place a frame. A clip draws its phase, the first frame's place
    in the queue, so that over clips every place is decoded equally often.

    Args:
        config: Configuration that fixes the grid of units.
        unit_tokens: [units, tokens], positions of each unit's tokens in the final grid, in order.
        share: Share of a unit's tokens to choose.

    Returns:
        [phases, units, chosen tokens], positions in the final grid.
    """
    tokens = unit_tokens.shape[1]
    if tokens < 2:
        raise ConfigError(
            "mae.decoder_tokens='running_cell': each unit has a single token left; use 'random' or "
            "'all'"
        )
    left_out = tokens - cell_size(tokens, share)
    units_per_frame = config.unit_grid[-2] * config.unit_grid[-1]
    places = [
        [
            [place for place in range(tokens) if (place + phase + time + 1) % tokens >= left_out]
            for time in range(config.num_units // units_per_frame)
            for _ in range(units_per_frame)
        ]
        for phase in range(tokens)
    ]
    table = torch.tensor(places, device=unit_tokens.device)
    return unit_tokens.expand(tokens, -1, -1).gather(2, table)


def cell_size(tokens: int, share: float) -> int:
    """Return how many of a unit's tokens a running cell decodes: all but a floored share.

    >>> cell_size(4, 0.5), cell_size(4, 0.3)
    (2, 2)
    """
    return max(1, tokens - int(tokens * (1 - share)))


def choose_hidden_tokens(masked: Tensor, count: int, draws: Tensor) -> Tensor:
    """Choose the `count` hidden tokens with the smallest draws, as ascending positions [B, count].

    Args:
        masked: [B, N] bool, True = hidden.
        count: Number of tokens to choose in each clip.
        draws: [B, N], uniform in [0, 1).
    """
    return draws.masked_fill(~masked, 2.0).argsort(dim=1)[:, :count].sort(dim=1).values
