"""Classifier and masked autoencoder of every rung from MViTv2 to Hiera.

They share Hiera's embedding, head, decoder and interface; only the blocks differ.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from hiera_video.errors import ConfigError
from hiera_video.models.hiera import Hiera, HieraEncoder
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.mvit.blocks import LadderBlock
from hiera_video.models.mvit.config import LadderConfig, ladder_table
from hiera_video.models.registry import MaeConfig
from hiera_video.models.tokens import count_visible, indices_of_true


class LadderEncoder(HieraEncoder):
    """Hiera's encoder with the blocks of a rung."""

    config: LadderConfig

    def make_blocks(self) -> nn.ModuleList:
        """Build the blocks of the rung."""
        return nn.ModuleList(
            LadderBlock(self.config, self.order, layout) for layout in ladder_table(self.config)
        )

    def make_positions(self) -> None:
        """Create the position embeddings of the tokens, unless they are relative ones."""
        if not self.config.relative_positions:
            super().make_positions()
        if self.config.class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, self.config.embed_dim))

    @torch.no_grad()
    def init_rung(self) -> None:
        """Draw the initial weights of what Hiera does not have."""
        for name, parameter in self.named_parameters():
            if ".rel_pos." in name or name == "cls_token" or name.endswith(".conv.weight"):
                nn.init.trunc_normal_(parameter, std=0.02)

    def no_weight_decay(self) -> set[str]:
        """Return the names of the matrices without weight decay: positions and class token."""
        names = {n for n, _ in self.named_parameters() if ".rel_pos." in n or n == "cls_token"}
        return super().no_weight_decay() | names

    def position_embedding(self) -> Tensor:
        """Return the absolute position embedding; zeros if a rung has relative ones."""
        if not self.config.relative_positions:
            return super().position_embedding()
        return self.patch_embed.proj.weight.new_zeros(
            1, self.config.embed_dim, *self.config.token_grid
        )

    def encode(
        self,
        clips: Tensor,
        keep: Tensor | None = None,
        path_draws: Tensor | None = None,
        visible: int | None = None,
    ) -> list[Tensor]:
        """Return the output of each stage in unit order, without the class token.

        Arguments and errors are those of `HieraEncoder.encode`.

        Raises:
            ConfigError: If `keep` is given, but a kernel or a window needs every unit of the clip.
        """
        tokens, units = self.embed_units(clips, keep, visible)
        return self.run_blocks(tokens, units, path_draws)[0]

    def embed_units(
        self, clips: Tensor, keep: Tensor | None, visible: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the tokens [B, units, tokens, C] of visible units, and the units' numbers."""
        self._check_clips(clips)
        config = self.config
        if keep is None:
            return self.embed(clips), torch.arange(config.num_units, device=clips.device)[None]
        if config.window or (config.overlap and not config.separate_units):
            raise ConfigError(
                "keep: this model cannot leave units out, because "
                + ("a window spans several of them" if config.window else "its kernels overlap")
                + "; masked models are named mae_mvitv2_… and mae_ladder_…"
            )
        trusted = visible is not None
        count = count_visible(keep, len(clips), config.num_units, visible, trusted=trusted)
        return self.embed(clips, keep, count), indices_of_true(keep, count)

    def run_blocks(
        self,
        tokens: Tensor,
        units: Tensor,
        path_draws: Tensor | None = None,
        visible: Tensor | None = None,
    ) -> tuple[list[Tensor], Tensor | None]:
        """Run the blocks.

        Args:
            tokens: [B, U, tokens of a unit, C].
            units: [B or 1, U], the number of each unit.
            path_draws: As in `HieraEncoder.encode`.
            visible: [B, U] bool; attention over the clip ignores units where it is False.

        Returns:
            One tensor [B, U, tokens of a unit, C] for each stage, and the class token [B, 1, C].
        """
        batch, count = tokens.shape[:2]
        tokens, first = tokens.flatten(1, 2), int(self.config.class_token)
        if first:
            token = self.cls_token.expand(batch, -1, -1).to(tokens.dtype)
            tokens = torch.cat([token, tokens], dim=1)
        scales = self._branch_scales(tokens, path_draws)
        outputs, ends = [], {stage.last_block for stage in self.stages}
        for index, block in enumerate(self.blocks):
            scale = scales[:, index] if scales is not None and self._has_drop_path[index] else None
            tokens = self.run_block(partial(block, units=units, visible=visible), tokens, scale)
            if index in ends:
                outputs.append(tokens[:, first:].reshape(batch, count, -1, tokens.shape[-1]))
        return outputs, tokens[:, :1] if first else None


class LadderClassifier(LadderEncoder, Hiera):
    """Classifier of a rung: Hiera's head on the mean over tokens, or on the class token."""

    def __init__(self, config: LadderConfig, checkpointing: bool = False) -> None:
        super().__init__(config, checkpointing)
        if config.class_token:
            self.global_pool = "token"
        self.init_rung()

    def forward(self, clips: Tensor, path_draws: Tensor | None = None) -> Tensor:
        """Return logits, as `Hiera.forward` does; features without a head."""
        if self.global_pool != "token":
            return super().forward(clips, path_draws)
        tokens, units = self.embed_units(clips, None)
        _, token = self.run_blocks(tokens, units, path_draws)
        assert token is not None
        return self.forward_head(token)


class MaskedAutoencoderLadder(LadderEncoder, MaskedAutoencoderHiera):
    """Masked autoencoder of a rung: Hiera's fusion of stages, decoder and target."""

    def __init__(self, config: LadderConfig, mae: MaeConfig, checkpointing: bool = False) -> None:
        super().__init__(config, mae, checkpointing)
        self.init_rung()
