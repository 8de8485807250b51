from __future__ import annotations

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend

from hiera_video.models import blocks
from hiera_video.models.blocks import attend, attend_in_chunks
from hiera_video.models.factory import create_model


@pytest.mark.parametrize(
    "name", ["hiera_micro_16x32", "mae_hiera_micro_16x32", "hiera_tiny_224", "hiera_tiny_16x224"]
)
def test_attention_inputs_have_four_dimensions(name):
    size = (64, 64) if name.endswith("_224") else (16, 64, 64)
    model = create_model(name, input_size=size)
    clips = torch.randn(2, 3, *size)
    with mock.patch.object(
        F, "scaled_dot_product_attention", wraps=F.scaled_dot_product_attention
    ) as spy:
        model(clips)
    blocks = len(model.blocks) + len(getattr(model, "decoder_blocks", ()))
    assert spy.call_count == blocks
    for call in spy.call_args_list:
        assert [tensor.ndim for tensor in call.args] == [4, 4, 4]
        assert all(tensor.stride(-1) == 1 for tensor in call.args)  # kernels need no copy


def test_attention_in_chunks_is_equal():
    query, key, value = (torch.randn(7, 2, tokens, 8, requires_grad=True) for tokens in (4, 16, 16))
    whole, parts = (
        F.scaled_dot_product_attention(query, key, value),
        attend_in_chunks(query, key, value, 3),
    )
    assert torch.equal(whole, parts)
    for one, other in zip(
        *(torch.autograd.grad(out.square().sum(), (query, key, value)) for out in (whole, parts))
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("is_cuda", "windows", "heads", "calls"),
    [
        (True, 65_535, 1, 1),
        (True, 65_536, 1, 2),
        (True, 2**17 // 8 + 1, 8, 2),
        (False, 70_000, 1, 1),
    ],
)
def test_only_large_batches_on_a_gpu_are_split(
    is_cuda: bool, windows: int, heads: int, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.Tensor, "is_cuda", is_cuda)
    query = torch.empty(windows, heads, 1, 1)
    with mock.patch.object(F, "scaled_dot_product_attention", side_effect=lambda q, k, v: q) as spy:
        out = attend(query, query, query)
    assert (spy.call_count, out.shape) == (calls, query.shape)


def test_unit_attention_stays_within_its_unit():
    model = create_model("hiera_micro_16x32").eval()
    tokens = torch.randn(1, 32 * 16, 64)
    changed = tokens.clone()
    changed[0, 16:32] += 1.0  # unit 1
    with torch.no_grad():
        before, after = model.blocks[0](tokens), model.blocks[0](changed)
    moved = (before != after).any(dim=2).view(32, 16).any(dim=1)
    assert moved.tolist() == [unit == 1 for unit in range(32)]


@torch.no_grad()
def test_branch_scale_columns_are_attention_and_mlp():
    block = create_model("hiera_micro_16x32").eval().blocks[0]
    tokens = torch.randn(2, 32 * 16, 64)
    found = block(tokens, torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
    attention, mlp = block.attn(block.norm1(tokens)), block.mlp(block.norm2(tokens))
    assert torch.allclose(found[0], (tokens + 2 * attention)[0], atol=1e-6)
    assert torch.allclose(found[1], (tokens + 3 * mlp)[1], atol=1e-6)


@pytest.mark.parametrize(
    ("tokens", "capability", "expected"),
    [
        (64, 8, blocks.WINDOW_BACKENDS),
        (64, 9, blocks.WINDOW_BACKENDS),
        (65, 8, ()),
        (65, 9, (SDPBackend.CUDNN_ATTENTION, *blocks.WINDOW_BACKENDS)),
        (65, 10, ()),
    ],
)
def test_torchs_kernels_of_a_gpu(
    tokens: int, capability: int, expected: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_capability", lambda device: capability)
    key = torch.empty(1, 1, tokens, 1)
    assert blocks._preferred_backends(key) == expected
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert blocks._preferred_backends(key) == blocks.WINDOW_BACKENDS


@pytest.mark.parametrize(
    ("queries", "keys", "dtype", "capability", "expected"),
    [
        (64, 64, torch.bfloat16, 8, True),
        (4, 16, torch.float16, 9, True),
        (64, 64, torch.float32, 9, False),
        (64, 64, torch.bfloat16, 7, False),
        (2, 16, torch.bfloat16, 9, False),  # 8 rows are too few for tensor cores
        (98, 98, torch.bfloat16, 9, False),
    ],
)
def test_windows_of_a_gpu_take_our_kernel(
    queries: int,
    keys: int,
    dtype: torch.dtype,
    capability: int,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks, "WINDOW_KERNEL", True)
    monkeypatch.setattr(blocks, "_capability", lambda device: capability)
    query, key = (torch.empty(1, 1, tokens, 96, dtype=dtype) for tokens in (queries, keys))
    assert not blocks._takes_kernel(query, key)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    assert blocks._takes_kernel(query, key) is expected


def test_the_capability_is_the_major_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert blocks._capability(0) == blocks.HOPPER
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert blocks._capability(0) == 0


@pytest.mark.slow
def test_the_capability_is_a_constant_to_the_compiler() -> None:
    def marked() -> None: ...

    torch.compiler.assume_constant_result(marked)
    assert vars(marked) == vars(blocks._capability)
