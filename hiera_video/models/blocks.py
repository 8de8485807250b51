"""The transformer block: attention within mask units or over the clip, query pooling, MLP, stochastic depth."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiera_video.models.layout import BlockLayout
from hiera_video.models.linear import Linear
from hiera_video.models.tokens import pool_units

NORM_EPS = 1e-6
CUDA_WINDOWS = 2**16 - 1
"""Windows beyond which no grid of a GPU's attention reaches (pytorch#146704)."""
CUDA_HEADS = 2**17
"""Windows × heads beyond which the fused kernel's gradient, with 128 queries of 128 channels each, counts past 2**31
(flash-attention#1500)."""


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Fused attention, [windows, heads, tokens, channels]; on a GPU in parts where its kernels fail at so many windows."""
    most = min(CUDA_WINDOWS, CUDA_HEADS // query.shape[1])
    if query.is_cuda and len(query) > most:
        return attend_in_parts(query, key, value, most)
    return F.scaled_dot_product_attention(query, key, value)


def attend_in_parts(query: Tensor, key: Tensor, value: Tensor, most: int) -> Tensor:
    """At most so many windows at a time."""
    parts = zip(*(torch.split(tensor, most) for tensor in (query, key, value)))
    return torch.cat([F.scaled_dot_product_attention(*part) for part in parts])


class UnitAttention(nn.Module):
    """Attention over tokens in unit order, [B, N, dim_in] to [B, N or fewer, dim_out].

    Units are contiguous, so that windows are a view; query, key and value reach the fused kernels as four-dimensional
    views [B * windows, heads, tokens, channels], with no copy before or after (five dimensions would fall back to the
    plain kernel, which writes the whole attention matrix)."""

    def __init__(self, layout: BlockLayout) -> None:
        super().__init__()
        self.layout = layout
        self.qkv = Linear(layout.dim_in, 3 * layout.dim_out)
        self.proj = Linear(layout.dim_out, layout.dim_out)

    def forward(self, tokens: Tensor) -> Tensor:
        layout = self.layout
        batch, length, _ = tokens.shape
        window = layout.unit_tokens_in if layout.attention == "unit" else length
        # b (w n) (three heads d) -> three tensors (b w) n heads d
        query, key, value = (
            self.qkv(tokens)
            .view(-1, window, 3, layout.heads, layout.dim_out // layout.heads)
            .unbind(2)
        )
        stride = layout.unit_tokens_in // layout.unit_tokens_out
        if stride > 1:
            query = pool_units(query, layout.unit_tokens_out, stride)
        mixed = attend(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        # (b w) heads n d -> b (w n) (heads d)
        out: Tensor = self.proj(
            mixed.transpose(1, 2).reshape(batch, length // stride, layout.dim_out)
        )
        return out


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        traced = (
            torch.is_grad_enabled()
        )  # then the second layer computes GELU, which it need not keep
        mixed: Tensor = self.fc2(self.fc1(tokens, gelu=not traced), gelu_first=traced)
        return mixed


class HieraBlock(nn.Module):
    """Pre-norm attention and MLP. Where the width changes, the shortcut is projected (and pooled) as well."""

    def __init__(self, layout: BlockLayout, mlp_ratio: float) -> None:
        super().__init__()
        self.layout = layout
        self.norm1 = nn.LayerNorm(layout.dim_in, eps=NORM_EPS)
        self.attn = UnitAttention(layout)
        self.norm2 = nn.LayerNorm(layout.dim_out, eps=NORM_EPS)
        self.mlp = Mlp(layout.dim_out, int(layout.dim_out * mlp_ratio))
        if layout.dim_in != layout.dim_out:
            self.proj = Linear(layout.dim_in, layout.dim_out)

    def forward(self, tokens: Tensor, branch_scale: Tensor | None = None) -> Tensor:
        """tokens [B, N, dim_in]; branch_scale [B, 2]: factor of the attention and the MLP branch, 0 where stochastic
        depth drops it."""
        layout = self.layout
        normed = self.norm1(tokens)
        if layout.dim_in != layout.dim_out:
            tokens = self.proj(normed)
            stride = layout.unit_tokens_in // layout.unit_tokens_out
            if stride > 1:
                tokens = pool_units(tokens, layout.unit_tokens_out, stride)
        tokens = _add(tokens, self.attn(normed), branch_scale, 0)
        return _add(tokens, self.mlp(self.norm2(tokens)), branch_scale, 1)


def _add(tokens: Tensor, branch: Tensor, branch_scale: Tensor | None, which: int) -> Tensor:
    if branch_scale is None:
        return tokens + branch
    return tokens + branch * branch_scale[:, which].to(branch.dtype).view(-1, 1, 1)
