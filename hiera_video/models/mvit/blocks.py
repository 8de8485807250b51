"""Transformer block of every rung from MViTv2 to Hiera; each switch is one `if`."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiera_video.models.blocks import NORM_EPS, Mlp, add_branch, attend
from hiera_video.models.linear import FusedLinear
from hiera_video.models.mvit.config import LadderBlockLayout, LadderConfig
from hiera_video.models.mvit.pooling import TokenPool
from hiera_video.models.mvit.relative import RelativePositions
from hiera_video.models.mvit.windows import WindowGrid
from hiera_video.models.tokens import UnitOrder


class LadderAttention(nn.Module):
    """Pooling attention over the clip (MViTv2 to rung e), or attention within units (rung f).

    Args:
        config: Its switches choose the rung.
        order: Order of the tokens.
        layout: The block.
    """

    def __init__(self, config: LadderConfig, order: UnitOrder, layout: LadderBlockLayout) -> None:
        super().__init__()
        self.layout = layout
        self.class_tokens = int(config.class_token)
        self.query_residual = config.query_residual
        self.qkv = FusedLinear(layout.dim_in, 3 * layout.dim_out)
        self.proj = FusedLinear(layout.dim_out, layout.dim_out)
        channels = layout.dim_out // layout.heads if config.pool == "conv" else 0
        self.pool_q: TokenPool | None = None
        self.pool_k: TokenPool | None = None
        self.pool_v: TokenPool | None = None
        if config.stride_one_pools or math.prod(layout.q_stride) > 1:
            self.pool_q = TokenPool(config, order, layout, layout.q_stride, channels=channels)
        if config.stride_one_pools or math.prod(layout.kv_stride) > 1:
            stride = layout.kv_stride
            self.pool_k = TokenPool(config, order, layout, stride, channels=channels, keys=True)
            self.pool_v = TokenPool(config, order, layout, stride, channels=channels, keys=True)
        self.rel_pos: RelativePositions | None = None
        if config.relative_positions:
            self.rel_pos = RelativePositions(config, order, layout)
        self.windows: WindowGrid | None = None
        if config.window and layout.attention == "unit":
            self.windows = WindowGrid(config, order, layout)

    def forward(self, tokens: Tensor, units: Tensor, visible: Tensor | None = None) -> Tensor:
        """Attend; arguments as in `LadderBlock`, with the tokens normalised."""
        layout = self.layout
        batch, length, _ = tokens.shape
        within_units = layout.attention == "unit" and self.windows is None
        group = layout.unit_tokens_in if within_units else length
        # b (w n) (three heads d) -> three tensors (b w) n heads d
        query, key, value = (
            self.qkv(tokens)
            .view(-1, group, 3, layout.heads, layout.dim_out // layout.heads)
            .unbind(2)
        )
        query, key, value = (
            self._pool(pool, part)
            for pool, part in ((self.pool_q, query), (self.pool_k, key), (self.pool_v, value))
        )
        if self.windows is not None:
            attended = self.windows.attend(query, key, value)
        else:
            query, key, value = (part.transpose(1, 2) for part in (query, key, value))
            bias = self._bias(query, key, units, visible)
            if bias is None:
                attended = attend(query, key, value)
            else:
                attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
            if self.query_residual:
                attended = attended + self._without_class_token(query)
            attended = attended.transpose(1, 2)
        # (b w) n heads d -> b (w n) (heads d)
        out: Tensor = self.proj(attended.reshape(batch, -1, layout.dim_out))
        return out

    def _pool(self, pool: TokenPool | None, tokens: Tensor) -> Tensor:
        """Pool [B, N, heads, c], but for the class token, and normalise all of them."""
        if pool is None:
            return tokens
        first = self.class_tokens
        pooled: Tensor = pool(tokens[:, first:])
        if first:
            pooled = torch.cat([tokens[:, :first], pooled], dim=1)
        return pooled if pool.conv is None else pool.norm(pooled)

    def _bias(
        self, query: Tensor, key: Tensor, units: Tensor, visible: Tensor | None
    ) -> Tensor | None:
        """Return what is added to the logits, broadcastable to [B, heads, queries, keys]."""
        first, bias = self.class_tokens, None
        if self.rel_pos is not None:
            bias = F.pad(self.rel_pos(query[:, :, first:], units), (first, 0, first, 0))
        if visible is not None and self.layout.attention == "global":
            keys = visible.repeat_interleave((key.shape[2] - first) // visible.shape[1], dim=1)
            hidden = ~F.pad(keys, (first, 0), value=True)[:, None, None, :]
            zeros = torch.zeros(hidden.shape, dtype=query.dtype, device=query.device)
            bias = (zeros if bias is None else bias).masked_fill(hidden, -math.inf)
        return bias

    def _without_class_token(self, query: Tensor) -> Tensor:
        """Return the pooled queries with the class token's set to 0: its residual is left out."""
        first = self.class_tokens
        return F.pad(query[:, :, first:], (0, 0, first, 0)) if first else query


class LadderBlock(nn.Module):
    """Pre-norm attention and MLP; where the width changes, the shortcut is projected and pooled.

    Args:
        config: Its switches choose the rung.
        order: Order of the tokens.
        layout: The block.
    """

    def __init__(self, config: LadderConfig, order: UnitOrder, layout: LadderBlockLayout) -> None:
        super().__init__()
        self.class_tokens = int(config.class_token)
        self.norm1 = nn.LayerNorm(layout.dim_in, eps=NORM_EPS)
        self.attn = LadderAttention(config, order, layout)
        self.norm2 = nn.LayerNorm(layout.dim_out, eps=NORM_EPS)
        self.mlp = Mlp(layout.dim_out, int(layout.dim_out * config.mlp_ratio))
        self.proj: FusedLinear | None = None
        if layout.dim_in != layout.dim_out:
            self.proj = FusedLinear(layout.dim_in, layout.dim_out)
        self.pool_skip: TokenPool | None = None
        if math.prod(layout.q_stride) > 1:
            # the shortcut's kernel overlaps only along the axes that it reduces
            kernel = tuple(3 if stride > 1 else 1 for stride in layout.q_stride)
            self.pool_skip = TokenPool(config, order, layout, layout.q_stride, kernel=kernel)

    def forward(
        self,
        tokens: Tensor,
        branch_scale: Tensor | None,
        units: Tensor,
        visible: Tensor | None = None,
    ) -> Tensor:
        """Apply the block to tokens in unit order.

        Args:
            tokens: [B, N, dim_in]; a class token comes first.
            branch_scale: [B, 2], factors on the attention and the MLP branch of each sample; 0
                where stochastic depth drops the branch.
            units: [B or 1, U], the number of each unit that the tokens belong to.
            visible: [B, U] bool; attention over the clip ignores the keys of units where it is
                False.

        Returns:
            [B, N / pooling, dim_out].
        """
        normed = self.norm1(tokens)
        if self.proj is not None:
            tokens = self.proj(normed)
        if self.pool_skip is not None:
            first = self.class_tokens
            pooled = self.pool_skip(tokens[:, first:].unsqueeze(2)).squeeze(2)
            tokens = torch.cat([tokens[:, :first], pooled], dim=1) if first else pooled
        tokens = add_branch(tokens, self.attn(normed, units, visible), branch_scale, 0)
        return add_branch(tokens, self.mlp(self.norm2(tokens)), branch_scale, 1)
