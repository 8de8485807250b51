"""Pooling of tokens: by convolution or maximum, over the whole clip or each mask unit by itself.

Separate and pad (arXiv 2306.00989, figure 4d): mask units move to the batch axis, and kernels that
overlap see zeros around a unit. So they run on visible units alone, and deleted ones cannot leak:

    whole clip    (b heads) c t h w           separate    (b heads units) c t h w, padded by zeros
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hiera_video.models.blocks import NORM_EPS
from hiera_video.models.mvit.config import LadderBlockLayout, LadderConfig
from hiera_video.models.tokens import UnitOrder, pool_units


class TokenPool(nn.Module):
    """Pooling of queries, keys or values, which heads share, or of the shortcut.

    Args:
        config: Its switches choose the kind of pooling.
        order: Order of the tokens.
        layout: The block.
        stride: Tokens that become one, along each axis.
        channels: Channels of a head for a convolution with its LayerNorm; 0 for a maximum.
        keys: Leave the result in spatial order within units, for keys and values; else it is in
            unit order.
        kernel: Kernel of pools that overlap, 3 along each axis by default.
    """

    def __init__(
        self,
        config: LadderConfig,
        order: UnitOrder,
        layout: LadderBlockLayout,
        stride: tuple[int, ...],
        *,
        channels: int = 0,
        keys: bool = False,
        kernel: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.order = order
        self.level_in, self.level_out = layout.level_in, layout.level_out
        self.stride, self.keys = stride, keys
        self.overlap, self.separate = config.overlap, config.separate_units
        self.kernel = kernel or (3,) * len(stride)
        self.margins = [size // 2 for size in self.kernel]
        self.unit_grid = {f"u{axis}": n for axis, n in zip(order.axes, config.unit_grid)}
        self.unit_tokens_in = layout.unit_tokens_in
        self.unit_tokens_out = layout.unit_tokens_in // math.prod(stride)
        self.conv: nn.Conv2d | nn.Conv3d | None = None
        if channels:
            conv = nn.Conv2d if len(stride) == 2 else nn.Conv3d
            self.conv = conv(
                channels,
                channels,
                kernel_size=self.kernel,  # type: ignore[arg-type]  # as long as the class needs
                stride=stride,  # type: ignore[arg-type]
                groups=channels,
                bias=False,
            )
            # attention applies it, because a class token is normalised but not pooled
            self.norm = nn.LayerNorm(channels, eps=NORM_EPS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool [B, N, heads, c] to [B, N / stride, heads, c]."""
        if not self.overlap:
            # neighbours in memory, so that a maximum copies nothing
            return pool_units(tokens, self.unit_tokens_out, math.prod(self.stride))
        units = rearrange(tokens, "b (u n) heads c -> (b heads) u n c", n=self.unit_tokens_in)
        pooled = self._pool_separately(units) if self.separate else self._pool_clip(units)
        return rearrange(pooled, "(b heads) n c -> b n heads c", b=tokens.shape[0])

    def _pool_separately(self, units: Tensor) -> Tensor:
        """Pool [B, units, tokens, c] unit by unit, each with a margin of zeros, to [B, N, c]."""
        grids = self.order.reroll_units(units, self.level_in).flatten(0, 1).movedim(-1, 1)
        sides = [margin for margin in reversed(self.margins) for _ in ("before", "after")]
        pooled = self._pool_grids(F.pad(grids, sides), [0] * len(self.margins))
        if self.keys:
            tokens = pooled.flatten(2).transpose(1, 2)
        else:
            tokens = self.order.unroll_units(pooled, self.level_out)
        return tokens.reshape(units.shape[0], -1, units.shape[-1])

    def _pool_clip(self, units: Tensor) -> Tensor:
        """Pool [B, units, tokens, c] over the grid of the clip, to [B, N, c]."""
        grid = self.order.reroll(units, self.level_in).movedim(-1, 1)
        pooled = self._pool_grids(grid, self.margins)
        if self.keys:
            axes = self.order.axes
            spatial = " ".join(f"(u{axis} {axis})" for axis in axes)
            by_unit = f"({' '.join(f'u{axis}' for axis in axes)} {' '.join(axes)})"
            return rearrange(pooled, f"b c {spatial} -> b {by_unit} c", **self.unit_grid)
        return self.order.unroll(pooled, self.level_out).flatten(1, 2)

    def _pool_grids(self, grids: Tensor, margins: list[int]) -> Tensor:
        video = len(margins) == 3
        if self.conv is None:
            pool = F.max_pool3d if video else F.max_pool2d
            pooled: Tensor = pool(grids, list(self.kernel), list(self.stride), margins)
            return pooled
        convolve = F.conv3d if video else F.conv2d
        return convolve(
            grids, self.conv.weight, None, self.stride, margins, groups=self.conv.groups
        )
