"""Attention rollout through the hierarchy: how much of the answer's attention a token receives.

A row vector r starts at 1/N for each of the N tokens that the head averages, and is walked
backwards: r ← ½ rA + ½ rR. A has a block's attention weights, averaged over heads; R is the
shortcut, which passes a token's share on to itself, or in equal parts to the tokens that a pooling
joined. Each row of A and R sums to 1, so r does at every block.

This is an approximation: a maximum over pooled tokens passes on one of them in each channel, and
values, MLPs and the sizes of the branches are left out. It is the same for every class.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hiera_video.explanations.attention import attention_weights, blocks_of, record_inputs
from hiera_video.models.blocks import HieraBlock
from hiera_video.models.hiera import HieraEncoder


@torch.no_grad()
def attention_rollout(model: HieraEncoder, clips: Tensor) -> Tensor:
    """Return the share of attention that each token of stage 1 receives.

    Args:
        model: A model in evaluation mode.
        clips: [B, C, T, H, W], or [B, C, H, W] for an image model; normalised.

    Returns:
        [B, (t,) h, w] float32 on the token grid of stage 1, in spatial order; sums to 1. 8×56×56
        for `hiera_base_16x224`.
    """
    tokens = rollout_steps(model, clips)[-1].view(len(clips), model.config.num_units, -1, 1)
    return model.order.reroll(tokens, 0)[..., 0]


@torch.no_grad()
def rollout_steps(model: HieraEncoder, clips: Tensor) -> list[Tensor]:
    """Return r before each block, from the last to the first: [B, tokens] in unit order."""
    with record_inputs(model) as inputs:
        last = model.encode(clips)[-1].flatten(1, 2)
    share = torch.full(last.shape[:2], 1 / last.shape[1], dtype=torch.float64, device=last.device)
    steps = []
    for block in reversed(blocks_of(model)):
        share = _step_back(block, inputs.pop(), share)
        steps.append(share)
    return [step.float() for step in steps]


def _step_back(block: HieraBlock, tokens: Tensor, share: Tensor) -> Tensor:
    """Return the share of each token before a block, given that of each token after it."""
    layout = block.layout
    weights = attention_weights(block.attn, tokens).mean(dim=2)
    batch, windows = weights.shape[:2]
    rows = share.view(batch, windows, 1, -1)
    attended = (rows @ weights.double()).flatten(1)
    stride = layout.unit_tokens_in // layout.unit_tokens_out
    # a pooled token joins `stride` tokens of its unit: b (u out) -> b (u stride out)
    kept = share.view(batch, -1, 1, layout.unit_tokens_out).expand(-1, -1, stride, -1) / stride
    return (attended + kept.flatten(1)) / 2
