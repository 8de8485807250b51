"""Maps drawn over the frames of a clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

FOR, AGAINST = (222, 60, 40), (45, 105, 220)
"""Colours of values above and below 0."""
OPACITY = 0.75
"""Opacity of the largest value."""


def as_pictures(clip: Tensor, *, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.uint8]:
    """Return a normalised clip [3, T, H, W] as frames, uint8 [T, H, W, 3].

    Args:
        clip: Pixels that were normalised by `mean` and `std`.
        mean: Mean of each channel in [0, 1].
        std: Standard deviation of each channel.
    """
    scale, shift = (torch.tensor(values).view(3, 1, 1, 1) for values in (std, mean))
    colours = (clip.detach().cpu().float() * scale + shift).clamp(0, 1)
    return rearrange((colours * 255).round().byte(), "c t h w -> t h w c").numpy()


def overlay(
    frames: NDArray[np.uint8], maps: NDArray[np.float32], *, limit: float | None = None
) -> NDArray[np.uint8]:
    """Draw a map over frames: red for values above 0, blue below 0, opaque with their size.

    Each place of the map covers its share of the frames; in a frame, the map is interpolated.

    Args:
        frames: uint8 [T, H, W, 3]; shown grey, so that colours belong to the map.
        maps: [t, h, w], T a multiple of t.
        limit: Absolute value that is drawn at full opacity; by default the largest of the map.

    Returns:
        uint8 [T, H, W, 3].
    """
    largest = float(np.abs(maps).max()) if limit is None else limit
    scaled = torch.from_numpy(np.ascontiguousarray(maps, np.float32)) / (largest or 1.0)
    values = F.interpolate(
        scaled.clamp(-1, 1).unsqueeze(1), frames.shape[1:3], mode="bilinear", align_corners=False
    )
    values = values[:, 0].repeat_interleave(len(frames) // len(maps), dim=0).unsqueeze(-1)
    grey = torch.from_numpy(frames).float().mean(dim=-1, keepdim=True)
    colour = torch.where(values > 0, torch.tensor(FOR), torch.tensor(AGAINST)).float()
    mixed = torch.lerp(grey.expand_as(colour), colour, OPACITY * values.abs().expand_as(colour))
    return mixed.round().byte().numpy()


def draw_grid(frames: NDArray[np.uint8], cell: tuple[int, int]) -> NDArray[np.uint8]:
    """Return frames, uint8 [T, H, W, 3], with white lines between cells of (height, width)."""
    drawn = frames.copy()
    drawn[:, cell[0] :: cell[0]] = 255
    drawn[:, :, cell[1] :: cell[1]] = 255
    return drawn


def hide_cells(frames: NDArray[np.uint8], shown: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return frames, uint8 [T, H, W, 3], with grey where `shown` [t, h, w] is False."""
    visible = shown
    for axis, size in enumerate(frames.shape[:3]):
        visible = visible.repeat(size // shown.shape[axis], axis=axis)
    return np.where(visible[..., None], frames, np.uint8(128))


def tint(frames: NDArray[np.uint8], colours: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the colours of a map [t, h, w, 3], in [0, 1], at the size of frames [T, H, W, 3]."""
    maps = rearrange(torch.from_numpy(colours), "t h w c -> t c h w")
    sized = F.interpolate(maps, frames.shape[1:3], mode="nearest")
    pixels = rearrange((sized * 255).round().byte(), "t c h w -> t h w c").numpy()
    return pixels.repeat(len(frames) // len(colours), axis=0)
