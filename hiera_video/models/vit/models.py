"""Classifier and masked autoencoder of the plain ViT.

They are Hiera's with one stage: its blocks attend over the clip and nothing is pooled. What is
theirs alone is VideoMAE's fixed position embedding, and MAE-ST's class token.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

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
        if self.config.class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, self.config.embed_dim))
        if not self.config.fixed_positions:
            super().make_positions()
            return
        table = sine_cosine_table(math.prod(self.config.token_grid), self.config.embed_dim)
        # not persistent: it follows from the input size, and no checkpoint has it
        self.register_buffer("pos_embed", table, persistent=False)

    def embed(
        self, clips: Tensor, keep: Tensor | None = None, visible: int | None = None
    ) -> Tensor:
        """Embed clips as `HieraEncoder.embed` does, after the class token if there is one."""
        tokens = super().embed(clips, keep, visible)
        if not self.config.class_token:
            return tokens
        token = self.cls_token.to(tokens.dtype).expand(len(tokens), 1, -1, -1)
        return torch.cat([token, tokens], dim=1)

    def encode(
        self,
        clips: Tensor,
        keep: Tensor | None = None,
        path_draws: Tensor | None = None,
        visible: int | None = None,
    ) -> list[Tensor]:
        """Return the last output without the class token; arguments as in `HieraEncoder.encode`."""
        first = int(self.config.class_token)
        return [out[:, first:] for out in super().encode(clips, keep, path_draws, visible)]

    def no_weight_decay(self) -> set[str]:
        """Return the matrices without weight decay: learned positions, class and mask tokens."""
        names = super().no_weight_decay() | {"cls_token", "decoder_cls_token"}
        return names & {name for name, _ in self.named_parameters()}  # no fixed table


class VitClassifier(VitEncoder, Hiera):
    """Classifier of a plain ViT: mean over tokens, LayerNorm, dropout, linear layer."""

    def __init__(self, config: VitConfig, checkpointing: bool = False) -> None:
        super().__init__(config, checkpointing)
        if config.class_token:
            nn.init.trunc_normal_(self.cls_token, std=0.02)


class MaskedAutoencoderVit(VitEncoder, MaskedAutoencoderHiera):
    """Masked autoencoder of a plain ViT: the decoder reads the last block's normalised output."""

    def __init__(self, config: VitConfig, mae: MaeConfig, checkpointing: bool = False) -> None:
        super().__init__(config, mae, checkpointing)
        if config.fixed_positions:
            table = sine_cosine_table(math.prod(config.token_grid), mae.decoder_embed_dim)
            del self.decoder_pos_embed
            self.register_buffer("decoder_pos_embed", table, persistent=False)
        if config.class_token:
            self.decoder_cls_token = nn.Parameter(torch.zeros(1, 1, mae.decoder_embed_dim))
            for token in (self.cls_token, self.decoder_cls_token):
                nn.init.trunc_normal_(token, std=0.02)

    def run_decoder(self, tokens: Tensor) -> Tensor:
        """Run the decoder's blocks, which attend to its class token too if there is one."""
        if not self.config.class_token:
            return super().run_decoder(tokens)
        token = self.decoder_cls_token.to(tokens.dtype).expand(len(tokens), -1, -1)
        return super().run_decoder(torch.cat([token, tokens], dim=1))[:, 1:]
