"""Rollout conserves its mass at every block and agrees with matrices that are multiplied out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from hiera_video.explanations.attention import attention_weights, blocks_of, record_inputs
from hiera_video.explanations.rollout import attention_rollout, rollout_steps
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.models.layout import HieraConfig


@pytest.mark.parametrize(
    ("name", "size", "blocks"),
    [
        ("hiera_micro_16x32", (16, 32, 32), 4),
        ("hiera_micro_16x32", (8, 64, 32), 4),
        pytest.param("hiera_base_16x224", (4, 224, 224), 24, marks=pytest.mark.slow),
        pytest.param("hiera_tiny_224", (224, 224), 12, marks=pytest.mark.slow),
    ],
)
def test_the_mass_is_one_at_every_block(name: str, size: tuple[int, ...], blocks: int) -> None:
    torch.manual_seed(0)
    model = create_model(name, input_size=size).eval()
    clips = torch.randn(2, 3, *size)
    steps = rollout_steps(model, clips)
    assert len(steps) == blocks
    for step in steps:
        assert (step.double().sum(dim=1) - 1).abs().max() <= 1e-6
        assert step.min() >= 0
    shares = attention_rollout(model, clips)
    assert shares.shape == (2, *model.config.token_grid)
    assert (shares.double().flatten(1).sum(dim=1) - 1).abs().max() <= 1e-6


def test_recomputed_weights_give_the_output_of_the_block(
    random_model: Callable[[], Hiera],
) -> None:
    model = random_model().eval()
    with torch.inference_mode():
        with record_inputs(model) as inputs:
            model.encode(torch.randn(1, 3, 16, 32, 32))
        for block, tokens in zip(blocks_of(model), inputs, strict=True):
            attention, layout = block.attn, block.layout
            weights = attention_weights(attention, tokens)
            value = attention.qkv(tokens)[..., 2 * layout.dim_out :]
            value = value.view(weights.shape[1], -1, layout.heads, layout.dim_out // layout.heads)
            mixed = (weights[0] @ value.transpose(1, 2)).transpose(1, 2).flatten(0, 1).flatten(1)
            ours = F.linear(mixed, attention.proj.weight, attention.proj.bias)
            assert torch.allclose(ours, attention(tokens)[0], atol=1e-4)
            assert torch.allclose(weights.sum(dim=-1), torch.ones(()), atol=1e-6)
    assert not any(block.attn._forward_pre_hooks for block in blocks_of(model))


def test_uniform_attention_spreads_the_mass_evenly() -> None:
    model = create_model("hiera_micro_16x32").eval()
    with torch.no_grad():
        for block in blocks_of(model):
            block.attn.qkv.weight.zero_()
            block.attn.qkv.bias.zero_()
    shares = attention_rollout(model, torch.randn(1, 3, 16, 32, 32))
    assert torch.allclose(shares, torch.full((1, 8, 8, 8), 1 / 512), atol=1e-8)


def test_a_token_that_all_attend_to_receives_half_of_each_block() -> None:
    """One block of one stage: r = ½ · 1/N + ½ · (1 at the token that every query chooses)."""
    config = HieraConfig(
        input_size=(2, 8, 8), embed_dim=4, stages=(1,), q_pool=0, mask_unit_size=(1, 2, 2),
        mask_unit_attn=(False,), num_classes=2,
    )  # fmt: skip
    model = Hiera(config).eval()
    attention = blocks_of(model)[0].attn
    with torch.no_grad():
        attention.qkv.weight.zero_()
        attention.qkv.bias.zero_()
        attention.qkv.weight[4:8, :] = 100.0 * torch.eye(4)  # the keys are the tokens
        attention.qkv.bias[0] = 100.0  # each query looks along channel 0

    shares = attention_rollout(model, torch.randn(1, 3, 2, 8, 8))
    assert sorted(shares.flatten().tolist()) == pytest.approx([0.125, 0.125, 0.125, 0.625])
