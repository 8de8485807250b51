"""Parameters that are not trained: frozen parts of the encoder, or all of it beside adapters."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from hiera_video.models.lora import DOWN, UP, add_adapters
from hiera_video.train.config import count_frozen_blocks

EMBEDDINGS = ("patch_embed", "pos_embed", "cls_token")


def restrict_training(model: nn.Module, freeze: Sequence[str], lora_rank: int | None) -> None:
    """Freeze parameters of `model` and add adapters, in place.

    Args:
        model: A Hiera encoder with any head.
        freeze: Parts to freeze, as in `train.freeze`.
        lora_rank: Rank of the adapters of the blocks that are not frozen, as in
            `optim.lora_rank`. With adapters, all other weights of the encoder are frozen; its last
            norm and the head are trained. None: no adapters.
    """
    blocks = count_frozen_blocks(freeze)
    parts = [*freeze]
    if lora_rank is not None:
        add_adapters(model, lora_rank, first_block=blocks)
        parts += [*EMBEDDINGS, "blocks."]
    frozen = tuple(f"{part}." if part == "norm" else part for part in parts if ":" not in part)
    frozen += tuple(f"blocks.{index}." for index in range(blocks))
    for name, parameter in model.named_parameters():
        if name.startswith(frozen) and not name.endswith((f".{DOWN}", f".{UP}")):
            parameter.requires_grad_(False)
