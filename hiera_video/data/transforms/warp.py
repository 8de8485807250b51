"""Warp whole uint8 clips with an affine map, bicubically: `grid_sample` to rounding, but faster.

torchvision.transforms.v2 has no bicubic warp for tensors. RandAugment's five warps run 1.4 × as
fast as with `grid_sample`, rotations 1.2 × (benchmarks/transforms_v2.py).

    [T, H, W, 3] ─▶ [H·W, T·3] ─each row a weighted sum of 16 (or 4)─▶ [H·W, T·3] ─▶ [T, 3, H, W]

All frames and channels of a pixel lie side by side: one index and one weight serve them all.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

Matrix = tuple[float, float, float, float, float, float]

SHARPNESS = -0.75
"""Parameter a of the bicubic kernel, as in torch; Pillow's is -1."""
ROWS_AT_ONCE = 32
"""Output rows computed together: their sums stay in the processor's cache."""
PIXEL = np.dtype("V3")
"""Three bytes that move together: numpy transposes pixels faster than bytes."""


def warp(clip: Tensor, matrix: Matrix, *, fill: int) -> Tensor:
    """Warp every frame of a clip with the same map.

    Args:
        clip: uint8 [T, 3, H, W].
        matrix: (a, b, c, d, e, f), which maps the centre (x, y) of an output pixel to the place
            (a x + b y + c, d x + e y + f) in the source, in pixels from the top left corner.
        fill: Grey level of pixels that come from outside the frame.

    Returns:
        uint8 [T, 3, H, W].
    """
    frames, height, width = len(clip), *clip.shape[-2:]
    a, b, c, d, e, f = matrix
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    source_x, source_y = a * x + b * y + c, d * x + e * y + f
    packed = rearrange(clip, "t c h w -> t (h w) c").contiguous().numpy().view(PIXEL)[..., 0]
    table = np.ascontiguousarray(packed.T).view(np.uint8)  # [H·W, T·3]
    # numpy asks Linux for huge pages, torch does not
    floats = torch.from_numpy(table.astype(np.float32))
    warped = torch.empty(height, width, frames * 3, dtype=torch.uint8)
    for first in range(0, height, ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        part_x, part_y = source_x[part], source_y[part]
        columns, column_weights = _taps(part_x, width, moves=(a, b, c) != (1, 0, 0))
        rows, row_weights = _taps(part_y, height, moves=(d, e, f) != (0, 1, 0))
        places = (rows * width)[..., :, None] + columns[..., None, :]  # [h, W, rows, columns]
        weights = row_weights[..., :, None] * column_weights[..., None, :]
        sums = F.embedding_bag(
            places.flatten(0, 1).flatten(1),
            floats,
            mode="sum",
            per_sample_weights=weights.flatten(0, 1).flatten(1),
        ).view(len(part_x), width, -1)
        sums.round_().clamp_(0, 255)
        sums[(part_x < 0) | (part_x >= width) | (part_y < 0) | (part_y >= height)] = fill
        warped[part] = sums
    pixels = warped.flatten(0, 1).numpy().view(PIXEL)  # [H·W, T]
    turned = torch.from_numpy(np.ascontiguousarray(pixels.T).view(np.uint8))
    return rearrange(turned, "t (h w c) -> t c h w", h=height, c=3)


def _taps(source: Tensor, length: int, *, moves: bool) -> tuple[Tensor, Tensor]:
    """Return the pixels along one axis that make each place of `source` [h, W], and their weights.

    Both are [h, W, 4]: beyond the border, the border's pixel counts. They are [h, W, 1] if nothing
    moves along the axis.
    """
    place = source - 0.5
    before = place.floor()
    if not moves:
        return place.int()[..., None], torch.ones_like(place)[..., None]
    fraction = place - before
    taps = (before[..., None] + torch.arange(-1, 3)).clamp(0, length - 1).int()
    weights = (_outer(fraction + 1), _inner(fraction), _inner(1 - fraction), _outer(2 - fraction))
    return taps, torch.stack(weights, dim=-1)


def _inner(x: Tensor) -> Tensor:
    """Return the weight at distances in [0, 1]: Keys' cubic convolution (1981)."""
    return ((SHARPNESS + 2) * x - (SHARPNESS + 3)) * x * x + 1


def _outer(x: Tensor) -> Tensor:
    """Return the weight at distances in [1, 2]."""
    return ((x - 5) * x + 8) * x * SHARPNESS - 4 * SHARPNESS
