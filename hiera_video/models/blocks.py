"""Transformer block: attention within mask units or the clip, query pooling, MLP, drop path."""

from __future__ import annotations

import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hiera_video.models.layout import BlockLayout
from hiera_video.models.linear import FusedLinear
from hiera_video.models.tokens import pool_units
from hiera_video.models.window_attention import fits_kernel, window_attention

NORM_EPS = 1e-6
MAX_CUDA_WINDOWS = 2**16 - 1
"""Largest number of windows that a CUDA attention kernel can launch (pytorch#146704)."""
MAX_CUDA_WINDOW_HEADS = 2**17
"""Largest windows × heads: above it, the fused kernel's backward pass, at 128 queries of 128
channels each, overflows its 2**31 index (flash-attention#1500)."""
MAX_WINDOW_KEYS = 64
"""Largest number of keys of a window whose attention our kernel or `WINDOW_BACKENDS` computes."""
WINDOW_KERNEL = importlib.util.find_spec("triton") is not None
"""On a GPU, compute attention within windows by the kernel of `window_attention.py`."""
WINDOW_BACKENDS: tuple[SDPBackend, ...] = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)
"""Torch's kernels for many small windows on a GPU, best first: some versions prefer cuDNN's on
Hopper, which suit long sequences. Empty: torch's own order."""
AMPERE, HOPPER = 8, 9
"""Major compute capability of a generation of GPUs."""
HOPPER_BACKENDS = (SDPBackend.CUDNN_ATTENTION, *WINDOW_BACKENDS)
"""The same for attention over more keys on Hopper, where cuDNN's kernels are the fastest in
training. Torch prefers them too, but only from 2.13 on. Other GPUs: torch's own order."""


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute fused attention of [windows, heads, tokens, channels] tensors.

    On a GPU, batches that are too large for its kernels are processed in chunks.
    """
    if _takes_kernel(query, key):
        out: Tensor = window_attention(query, key, value)
        return out
    max_windows = min(MAX_CUDA_WINDOWS, MAX_CUDA_WINDOW_HEADS // query.shape[1])
    if query.is_cuda and len(query) > max_windows:
        return attend_in_chunks(query, key, value, max_windows)
    return _fused_attention(query, key, value)


def _fused_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    backends = _preferred_backends(key) if key.is_cuda else ()
    if not backends:
        return F.scaled_dot_product_attention(query, key, value)
    with sdpa_kernel(list(backends), set_priority=True):
        return F.scaled_dot_product_attention(query, key, value)


def _takes_kernel(query: Tensor, key: Tensor) -> bool:
    """Return True if `window_attention` computes this; exported programs do not contain it."""
    return (
        WINDOW_KERNEL
        and key.is_cuda
        and fits_kernel(query, key)
        and not torch.compiler.is_exporting()
        and _capability(key.device.index) >= AMPERE
    )


def _preferred_backends(key: Tensor) -> tuple[SDPBackend, ...]:
    """Return the kernels for attention over `key` on a GPU, best first; none: torch's order."""
    # cuDNN's backward pass adds in any order
    if key.shape[2] <= MAX_WINDOW_KEYS or torch.are_deterministic_algorithms_enabled():
        return WINDOW_BACKENDS
    return HOPPER_BACKENDS if _capability(key.device.index) == HOPPER else ()


def _capability(device: int) -> int:
    """Return the major number of a GPU's generation, a constant to `torch.compile`."""
    return torch.cuda.get_device_capability(device)[0] if torch.cuda.is_available() else 0


# all that `torch.compiler.assume_constant_result` does, which would import the compiler: seconds
_capability._dynamo_marked_constant = True  # type: ignore[attr-defined]


def attend_in_chunks(query: Tensor, key: Tensor, value: Tensor, max_windows: int) -> Tensor:
    """Compute the same attention, at most `max_windows` windows per kernel launch."""
    chunks = zip(*(torch.split(tensor, max_windows) for tensor in (query, key, value)))
    return torch.cat([_fused_attention(*chunk) for chunk in chunks])


class UnitAttention(nn.Module):
    """Attention over tokens in unit order, [B, N, dim_in] to [B, N / pooling, dim_out].

    Units are contiguous, so windows are a view. Query, key and value reach the fused kernels as
    4-dimensional views [B * windows, heads, tokens, channels] without a copy; 5-dimensional inputs
    would fall back to the plain kernel, which materialises the attention matrix.
    """

    def __init__(self, layout: BlockLayout) -> None:
        super().__init__()
        self.layout = layout
        self.qkv = FusedLinear(layout.dim_in, 3 * layout.dim_out)
        self.proj = FusedLinear(layout.dim_out, layout.dim_out)

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
        attended = attend(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        # (b w) heads n d -> b (w n) (heads d)
        out: Tensor = self.proj(
            attended.transpose(1, 2).reshape(batch, length // stride, layout.dim_out)
        )
        return out


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = FusedLinear(dim, hidden)
        self.fc2 = FusedLinear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        # With gradients, the second layer applies GELU and recomputes it in the backward pass.
        recompute = torch.is_grad_enabled()
        out: Tensor = self.fc2(self.fc1(tokens, gelu=not recompute), gelu_first=recompute)
        return out


class HieraBlock(nn.Module):
    """Pre-norm attention and MLP; where the width changes, the shortcut is projected and pooled."""

    def __init__(self, layout: BlockLayout, mlp_ratio: float) -> None:
        super().__init__()
        self.layout = layout
        self.norm1 = nn.LayerNorm(layout.dim_in, eps=NORM_EPS)
        self.attn = UnitAttention(layout)
        self.norm2 = nn.LayerNorm(layout.dim_out, eps=NORM_EPS)
        self.mlp = Mlp(layout.dim_out, int(layout.dim_out * mlp_ratio))
        if layout.dim_in != layout.dim_out:
            self.proj = FusedLinear(layout.dim_in, layout.dim_out)

    def forward(self, tokens: Tensor, branch_scale: Tensor | None = None) -> Tensor:
        """Apply the block to tokens in unit order.

        Args:
            tokens: [B, N, dim_in].
            branch_scale: [B, 2], factors on the attention and the MLP branch of each sample; 0
                where stochastic depth drops the branch.

        Returns:
            [B, N / pooling, dim_out].
        """
        layout = self.layout
        normed = self.norm1(tokens)
        if layout.dim_in != layout.dim_out:
            tokens = self.proj(normed)
            stride = layout.unit_tokens_in // layout.unit_tokens_out
            if stride > 1:
                tokens = pool_units(tokens, layout.unit_tokens_out, stride)
        tokens = add_branch(tokens, self.attn(normed), branch_scale, 0)
        return add_branch(tokens, self.mlp(self.norm2(tokens)), branch_scale, 1)


def add_branch(tokens: Tensor, branch: Tensor, branch_scale: Tensor | None, index: int) -> Tensor:
    """Add a branch to the shortcut, scaled by column `index` of `branch_scale` [B, 2]."""
    if branch_scale is None:
        return tokens + branch
    return tokens + branch * branch_scale[:, index].to(branch.dtype).view(-1, 1, 1)
