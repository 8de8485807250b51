"""Our kernel for attention within windows: results, gradients, compilation, equal bits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hiera_video.models.window_attention import window_attention

pytestmark = pytest.mark.gpu
SHAPES = [  # windows, heads, queries, keys, channels
    (301, 1, 64, 64, 96),
    (302, 2, 16, 64, 96),
    (303, 2, 16, 16, 96),
    (305, 4, 4, 16, 72),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_results_and_gradients(shape: tuple[int, ...], device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("tests/models/test_window_attention.py runs the kernel on a CPU")
    windows, heads, queries, keys, dim = shape
    torch.manual_seed(0)
    rows = torch.randn(windows, keys, 3, heads, dim, device=device).bfloat16()
    query, key, value = rows.unbind(2)
    query = query[:, :queries].contiguous() if queries < keys else query
    parts = [part.transpose(1, 2).detach().requires_grad_() for part in (query, key, value)]
    exact = [part.detach().float().requires_grad_() for part in parts]
    expected = F.scaled_dot_product_attention(exact[0], exact[1], exact[2])
    grad = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, exact, grad)
    compiled = torch.compile(window_attention, fullgraph=True, dynamic=False, backend="aot_eager")
    for run in (window_attention, compiled):
        out = run(*parts)
        assert (out - expected).abs().max() <= 2e-2 * expected.abs().max()
        found = torch.autograd.grad(out, parts, grad.bfloat16())
        for one, other in zip(found, gradients, strict=True):
            assert (one - other).abs().max() <= 2e-2 * other.abs().max()
    assert torch.equal(window_attention(*parts), window_attention(*parts))
