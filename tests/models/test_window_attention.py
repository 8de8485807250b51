"""Our kernel for attention within windows, by Triton's interpreter on the CPU.

On a GPU: tests/gpu/test_window_attention.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from hiera_video.models import window_attention as module

SHAPES = [  # windows, heads, queries, keys, channels; windows that do not fill the last program
    (5, 1, 64, 64, 96),
    (6, 2, 16, 64, 96),
    (7, 2, 16, 16, 96),
    (9, 4, 4, 16, 72),
]


def compare(windows: int, heads: int, queries: int, keys: int, dim: int) -> None:
    """Compare result and gradients with torch's, on views of a linear layer's output."""
    torch.manual_seed(0)
    rows = torch.randn(windows, keys, 3, heads, dim)
    query, key, value = rows.unbind(2)
    if queries < keys:  # a pooled query is a tensor of its own
        query = query[:, :queries].contiguous()
    query, key, value = (part.transpose(1, 2).requires_grad_() for part in (query, key, value))
    expected = F.scaled_dot_product_attention(query, key, value)
    grad = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, (query, key, value), grad)
    forward: Any = module.window_attention
    backward: Any = module.window_attention_backward
    with torch.no_grad():
        found = forward._init_fn(query, key, value)
        found_gradients = backward._init_fn(query, key, value, grad)
    assert found.transpose(1, 2).is_contiguous()  # the next layer needs no copy
    assert (found - expected).abs().max() <= 1e-5
    for one, other in zip(found_gradients, gradients, strict=True):
        assert (one - other).abs().max() <= 1e-5


@pytest.mark.slow
def test_result_and_gradients_equal_torchs() -> None:
    """In a process of its own, because Triton reads the variable when it is imported."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, __file__], env=environment, check=True)


def test_irregular_memory_is_copied() -> None:
    regular = torch.zeros(3, 4, 2, 8).transpose(1, 2)
    assert module._by_rows(regular) is regular
    padded = torch.zeros(3, 5, 2, 8)[:, :4].transpose(1, 2)
    assert module._by_rows(padded).stride() == regular.stride()


def test_shapes_of_the_result_without_data() -> None:
    query, key = (torch.empty(2, 3, tokens, 8, device="meta") for tokens in (4, 16))
    found = module.window_attention(query, key, key)
    assert found.shape == query.shape and found.transpose(1, 2).is_contiguous()
    gradients = module.window_attention_backward(query, key, key, query)
    assert [part.shape for part in gradients] == [query.shape, key.shape, key.shape]


if __name__ == "__main__":
    for shape in SHAPES:
        compare(*shape)
