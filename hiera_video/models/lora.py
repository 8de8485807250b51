"""Low-rank adapters (LoRA, arXiv 2106.09685) of the attention's linear layers.

An adapted layer computes W x + b + B A x. W and b keep their names and values; only A and B, of a
small rank, are trained. `merge_adapters` adds B A to W, so that the result is a plain state dict.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from hiera_video.models.blocks import HieraBlock
from hiera_video.models.linear import FusedLinear

DOWN, UP = "lora_a", "lora_b"
ADAPTED = ("qkv", "proj")
"""Layers of an attention that get adapters."""


class LowRankLinear(FusedLinear):
    """A linear layer with a low-rank update, which is zero at first.

    Args:
        linear: The layer, whose parameters are taken over and frozen.
        rank: Rank of the update.
    """

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__(linear.in_features, linear.out_features, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        for parameter in (self.weight, self.bias):
            parameter.requires_grad_(False)
        self.lora_a = nn.Parameter(self.weight.new_empty(rank, linear.in_features))
        self.lora_b = nn.Parameter(self.weight.new_zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, x: Tensor, gelu: bool = False, gelu_first: bool = False) -> Tensor:
        """Map x [..., in] to [..., out]; the attention's layers have no GELU."""
        assert not gelu and not gelu_first
        out: Tensor = super().forward(x)
        return out + (x @ self.lora_a.t()) @ self.lora_b.t()


def add_adapters(model: nn.Module, rank: int, *, first_block: int = 0) -> None:
    """Replace the linear layers of the attention in `model.blocks` by adapted ones, in place.

    Args:
        model: A model with `blocks`; its other parameters are not changed.
        rank: Rank of the updates.
        first_block: The blocks before it get no adapters.
    """
    for block in cast("list[HieraBlock]", model.blocks)[first_block:]:
        for name in ADAPTED:
            setattr(block.attn, name, LowRankLinear(getattr(block.attn, name), rank))


def has_adapters(model: nn.Module) -> bool:
    """Return True if any layer of `model` is adapted."""
    return any(isinstance(module, LowRankLinear) for module in model.modules())


@torch.no_grad()
def merge_adapters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict in which the updates of adapted layers are added to their weights.

    Args:
        state: State of a model, adapted or not; not changed.

    Returns:
        The state dict of the model without adapters.
    """
    merged = dict(state)
    for name in state:
        layer, dot, last = name.rpartition(".")
        if last == UP:
            weight = f"{layer}{dot}weight"
            update = merged.pop(name) @ merged.pop(f"{layer}{dot}{DOWN}")
            merged[weight] = merged[weight] + update
    return merged
