"""Attention weights of a block, recomputed in float32 because the fused kernels hide them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiera_video.errors import ConfigError
from hiera_video.models.blocks import HieraBlock, UnitAttention
from hiera_video.models.hiera import HieraEncoder
from hiera_video.models.tokens import pool_units
from hiera_video.utils.checks import require


@contextmanager
def record_inputs(model: HieraEncoder) -> Iterator[list[Tensor]]:
    """Record the input of each block's attention, [B, N, dim_in], during a forward pass."""
    inputs: list[Tensor] = []

    def keep(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs.append(arguments[0].detach().float())

    hooks = [block.attn.register_forward_pre_hook(keep) for block in blocks_of(model)]
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()


def attention_weights(attention: UnitAttention, tokens: Tensor) -> Tensor:
    """Return the attention weights of a block.

    Args:
        attention: The block's attention.
        tokens: [B, N, dim_in], its input.

    Returns:
        [B, windows, heads, queries, keys] float32; a row sums to 1. Windows are mask units, or the
        clip. Within a window, queries and keys are in unit order.
    """
    layout = attention.layout
    batch, length, _ = tokens.shape
    window = layout.unit_tokens_in if layout.attention == "unit" else length
    with torch.autocast(tokens.device.type, enabled=False):
        linear = attention.qkv
        qkv = F.linear(tokens.float(), linear.weight.float(), linear.bias.float())
        channels = layout.dim_out // layout.heads
        # b (w n) (three heads d) -> three tensors (b w) n heads d
        query, key, _ = qkv.view(-1, window, 3, layout.heads, channels).unbind(2)
        stride = layout.unit_tokens_in // layout.unit_tokens_out
        if stride > 1:
            query = pool_units(query, layout.unit_tokens_out, stride)
        scores = query.transpose(1, 2) @ key.permute(0, 2, 3, 1) * channels**-0.5
        weights: Tensor = scores.softmax(dim=-1)
        return weights.view(batch, -1, *weights.shape[1:])


@torch.no_grad()
def query_attention(
    model: HieraEncoder, clips: Tensor, query: Sequence[int], block: int = -1
) -> Tensor:
    """Return how one query of a block attends to the places of the clip.

    Args:
        model: A model in evaluation mode.
        clips: [B, C, T, H, W], or [B, C, H, W] for an image model; normalised.
        query: Place ((t,) h, w) of the query on the block's output map, in spatial order.
        block: Number of the block, counted from 0, or from the end if negative.

    Returns:
        [B, (t,) h, w] float32 on the block's input map, in spatial order: attention weights,
        averaged over heads. They sum to 1. In a block that attends within mask units, those of
        other units are 0.

    Raises:
        ConfigError: There is no such block or query.
    """
    blocks = blocks_of(model)
    require(
        -len(blocks) <= block < len(blocks),
        f"block={block}: the model has {len(blocks)} blocks, 0 to {len(blocks) - 1}",
    )
    with record_inputs(model) as inputs:
        model.encode(clips)
    levels = _poolings(model)
    index = block % len(blocks)
    before, after = levels[index], levels[index + 1]
    weights = attention_weights(blocks[index].attn, inputs[index]).mean(dim=2)
    batch, windows, queries, keys = weights.shape
    window, row = divmod(_unit_position(model, query, after), queries)
    chosen = weights.new_zeros(batch, windows, keys)
    chosen[:, window] = weights[:, window, row]
    tokens = chosen.view(batch, model.config.num_units, -1, 1)
    return model.order.reroll(tokens, before)[..., 0]


def blocks_of(model: HieraEncoder) -> list[HieraBlock]:
    """Return the blocks of the encoder, first to last."""
    blocks = [block for block in model.blocks if isinstance(block, HieraBlock)]
    require(
        len(blocks) == len(model.blocks),
        f"{type(model).__name__}: its blocks are not Hiera's, so their attention cannot be shown; "
        "give a Hiera",
    )
    return blocks


def _poolings(model: HieraEncoder) -> list[int]:
    """Return the number of poolings before each block, and after the last."""
    levels = [0]
    for block in blocks_of(model):
        pooled = block.layout.unit_tokens_in > block.layout.unit_tokens_out
        levels.append(levels[-1] + pooled)
    return levels


def _unit_position(model: HieraEncoder, place: Sequence[int], level: int) -> int:
    """Return the position in unit order of a place of the map after `level` poolings."""
    config = model.config
    grid = [size // stride**level for size, stride in zip(config.token_grid, config.q_stride)]
    if len(place) != len(grid) or not all(0 <= at < size for at, size in zip(place, grid)):
        raise ConfigError(
            f"query={list(place)}: the block's map is {'×'.join(map(str, grid))}; give a place of "
            "it, counted from 0"
        )
    marked = torch.zeros(1, 1, *grid)
    marked[(0, 0, *place)] = 1
    return int(model.order.unroll(marked, level).flatten().argmax())
