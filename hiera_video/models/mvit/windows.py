"""Attention within windows of a fixed number of tokens, as in Swin and ViTDet, for comparison."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from hiera_video.models.mvit.config import LadderBlockLayout, LadderConfig
from hiera_video.models.tokens import UnitOrder


class WindowGrid:
    """Windows of `mask_unit_size` tokens on the grid of a block.

    Mask units shrink with each query pooling, windows do not: after one pooling a window holds
    several units. Grids that are no multiple of a window are padded, and padding is not attended.

    Args:
        config: Its mask unit is the window.
        order: Order of the tokens.
        layout: The block; its queries may be pooled already.
    """

    def __init__(self, config: LadderConfig, order: UnitOrder, layout: LadderBlockLayout) -> None:
        self.order, self.level_in, self.level_out = order, layout.level_in, layout.level_out
        self.units = config.num_units
        self.key_window = config.mask_unit_size
        self.query_window = tuple(n // s for n, s in zip(self.key_window, layout.q_stride))
        self.grid = tuple(
            units * tokens // stride
            for units, tokens, stride in zip(config.unit_grid, layout.unit_in, layout.q_stride)
        )
        self.key_grid = tuple(
            units * tokens for units, tokens in zip(config.unit_grid, layout.unit_in)
        )

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend within windows; all tensors are [B, N, heads, c] in unit order."""
        batch, _, heads, _ = query.shape
        queries = self._split(query, self.level_out, self.query_window)
        keys, values = (self._split(x, self.level_in, self.key_window) for x in (key, value))
        mask = self._real_keys(key)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return self._join(attended, batch, heads)

    def _split(self, tokens: Tensor, level: int, window: tuple[int, ...]) -> Tensor:
        """Return the windows [(windows B), heads, tokens, c] of [B, N, heads, c]."""
        heads = tokens.shape[2]
        units = rearrange(tokens, "b (u n) heads c -> b u n (heads c)", u=self.units)
        grid = self._pad(self.order.reroll(units, level), window)
        inner = " ".join(f"({axis} i{axis})" for axis in self.order.axes)
        return rearrange(
            grid,
            f"b {inner} (heads c) -> ({self._outer()} b) heads ({self._inner()}) c",
            heads=heads,
            **{f"i{axis}": n for axis, n in zip(self.order.axes, window)},
        )

    def _join(self, windows: Tensor, batch: int, heads: int) -> Tensor:
        """Undo `_split` for the queries, to [B, N, heads, c]."""
        axes, window = self.order.axes, self.query_window
        counts = [-(-n // size) for n, size in zip(self.grid, window)]
        spatial = " ".join(f"({axis} i{axis})" for axis in axes)
        grid = rearrange(
            windows,
            f"({self._outer()} b) heads ({self._inner()}) c -> b (heads c) {spatial}",
            b=batch,
            **dict(zip(axes, counts)),
            **{f"i{axis}": n for axis, n in zip(axes, window)},
        )
        cropped = grid[(slice(None), slice(None), *(slice(n) for n in self.grid))]
        tokens = self.order.unroll(cropped, self.level_out)
        return rearrange(tokens, "b u n (heads c) -> b (u n) heads c", heads=heads)

    def _real_keys(self, key: Tensor) -> Tensor | None:
        """Return True for keys that are no padding, [windows B, 1, 1, keys]; None without any."""
        if all(n % size == 0 for n, size in zip(self.key_grid, self.key_window)):
            return None
        ones = torch.ones(key.shape[0], key.shape[1], 1, 1, dtype=torch.bool, device=key.device)
        return self._split(ones, self.level_in, self.key_window).transpose(2, 3)

    def _pad(self, grid: Tensor, window: tuple[int, ...]) -> Tensor:
        """Pad [B, (t,) h, w, C] at the end of each axis to a multiple of the window."""
        sides = [0, 0]  # none along the channels
        for size, step in zip(reversed(grid.shape[1:-1]), reversed(window)):
            sides += [0, -size % step]
        return F.pad(grid, sides)

    def _outer(self) -> str:
        return " ".join(self.order.axes)

    def _inner(self) -> str:
        return " ".join(f"i{axis}" for axis in self.order.axes)
