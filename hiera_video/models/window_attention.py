"""Attention within many small windows on a GPU, by kernels of our own.

The flash kernel computes tiles of 128 queries and 64 keys, of which windows of 16 or 64 tokens fill
a part. Gains: benchmarks/NOTES.md. Up to four windows share a product, so that a NaN in the values
of one window makes the others' results NaN too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

KEYS_OF_A_PROGRAM = 64
MIN_ROWS = 16
"""Smallest side of a matrix product on tensor cores."""
MAX_DIM = 128


def fits_kernel(query: Tensor, key: Tensor) -> bool:
    """Return True if `window_attention` takes tensors of these shapes and this type."""
    keys, queries, dim = key.shape[2], query.shape[2], key.shape[3]
    group = KEYS_OF_A_PROGRAM // keys if keys in (16, 32, 64) else 0
    return (
        key.dtype in (torch.bfloat16, torch.float16)
        and query.dtype == key.dtype
        and group * queries >= MIN_ROWS
        and queries & (queries - 1) == 0
        and dim <= MAX_DIM
    )


@torch.library.custom_op("hiera_video::window_attention", mutates_args=(), device_types="cuda")
def window_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute softmax attention of [windows, heads, tokens, channels] tensors; see `fits_kernel`.

    Returns:
        As `query`; in memory the heads follow the tokens.
    """
    from hiera_video.models.window_kernels import forward_kernel

    out = _empty_by_rows(query)
    query, key, value = (_by_rows(part) for part in (query, key, value))
    grid, sizes = _launch(query, key)
    forward_kernel[grid](query, key, value, out, *_strides(query, key, value), **sizes)
    return out.transpose(1, 2)


@torch.library.custom_op(
    "hiera_video::window_attention_backward", mutates_args=(), device_types="cuda"
)
def window_attention_backward(
    query: Tensor, key: Tensor, value: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of query, key and value from that of the output."""
    from hiera_video.models.window_kernels import backward_kernel

    grads = [_empty_by_rows(part) for part in (query, key, value)]
    grad = grad.transpose(1, 2).contiguous()
    query, key, value = (_by_rows(part) for part in (query, key, value))
    grid, sizes = _launch(query, key)
    backward_kernel[grid](query, key, value, grad, *grads, *_strides(query, key, value), **sizes)
    one, two, three = (part.transpose(1, 2) for part in grads)
    return one, two, three


def _empty_by_rows(part: Tensor) -> Tensor:
    """Return memory [windows, tokens, heads, channels] for a tensor like `part`."""
    windows, heads, tokens, dim = part.shape
    return part.new_empty(windows, tokens, heads, dim)


def _by_rows(part: Tensor) -> Tensor:
    """Return `part` with a constant step from token to token, over window borders too."""
    regular = part.stride(3) == 1 and part.stride(0) == part.shape[2] * part.stride(2)
    return part if regular else part.transpose(1, 2).contiguous().transpose(1, 2)


def _strides(query: Tensor, key: Tensor, value: Tensor) -> list[Any]:
    """Return steps from token to token and from head to head, as the kernels take them."""
    steps = [part.stride(axis) for part in (query, key, value) for axis in (2, 1)]
    return [*steps, query.shape[1] * query.shape[3], query.shape[0], query.shape[3] ** -0.5]


def _launch(query: Tensor, key: Tensor) -> tuple[tuple[int, int], dict[str, int]]:
    """Return the grid of programs and the kernels' constants."""
    windows, heads, queries, dim = query.shape
    group = KEYS_OF_A_PROGRAM // key.shape[2]
    sizes = {
        "QUERIES": queries,
        "KEYS": key.shape[2],
        "GROUP": group,
        "DIM": dim,
        "WIDTH": max(MIN_ROWS, 1 << (dim - 1).bit_length()),
    }
    return (-(-windows // group), heads), sizes


@window_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return _empty_by_rows(query).transpose(1, 2)


@window_attention_backward.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    one, two, three = (_empty_by_rows(part).transpose(1, 2) for part in (query, key, value))
    return one, two, three


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return window_attention_backward(*ctx.saved_tensors, grad)  # type: ignore[no-any-return]


window_attention.register_autograd(_backward, setup_context=_save)
