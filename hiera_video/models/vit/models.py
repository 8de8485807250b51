"""Classifier and masked autoencoder of the plain ViT.

They are Hiera's with one stage: its blocks attend over the clip and nothing is pooled. What is
theirs alone is the fixed position embedding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hiera_video.models.hiera import Hiera, HieraEncoder
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.registry import MaeConfig
from hiera_video.models.vit.config import VitConfig


def sine_cosine_table(places: int, dim: int) -> Tensor:
    """Return VideoMAE's position embedding of `places` tokens in spatial order, [1, places, dim].

    Place p has sin(p / 10000 ** (i / dim)) in channel i and its cosine in channel i + 1, for even
    i.
    """
    channels = torch.arange(dim, dtype=torch.float64)
    rates = 10000 ** ((channels - channels % 2) / dim)
    angles = torch.arange(places, dtype=torch.float64).unsqueeze(1) / rates
    table = torch.where(channels % 2 == 0, angles.sin(), angles.cos())
    return table.float().unsqueeze(0)


class VitEncoder(HieraEncoder):
    """Hiera's encoder of one stage with the position embedding of a plain ViT."""

    config: VitConfig

    def make_positions(self) -> None:
        """Create the position embedding: a constant, or learned."""
        if not self.config.fixed_positions:
            super().make_positions()
            return
        table = sine_cosine_table(math.prod(self.config.token_grid), self.config.embed_dim)
        # not persistent: it follows from the input size, and no checkpoint has it
        self.register_buffer("pos_embed", table, persistent=False)


class VitClassifier(VitEncoder, Hiera):
    """Classifier of a plain ViT: mean over tokens, LayerNorm, dropout, linear layer."""


class MaskedAutoencoderVit(VitEncoder, MaskedAutoencoderHiera):
    """Masked autoencoder of a plain ViT: the decoder reads the last block's normalised output."""

    def __init__(self, config: VitConfig, mae: MaeConfig, checkpointing: bool = False) -> None:
        super().__init__(config, mae, checkpointing)
        if config.fixed_positions:
            table = sine_cosine_table(math.prod(config.token_grid), mae.decoder_embed_dim)
            del self.decoder_pos_embed
            self.register_buffer("decoder_pos_embed", table, persistent=False)

    def no_weight_decay(self) -> set[str]:
        """Return the names of the matrices without weight decay, of which no table is fixed."""
        return super().no_weight_decay() & {name for name, _ in self.named_parameters()}
