"""Hiera for video and images (arXiv 2306.00989): the shared encoder and the classifier."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hiera_video.errors import ConfigError, InputSizeError
from hiera_video.models.blocks import NORM_EPS, HieraBlock
from hiera_video.models.heads import ClassifierHead
from hiera_video.models.initial import init_head, init_weights
from hiera_video.models.layout import HieraConfig, block_table, stage_table
from hiera_video.models.timm_interface import EMBEDDING, TimmInterface
from hiera_video.models.tokens import (
    PatchEmbed,
    UnitOrder,
    count_visible,
    indices_of_true,
)

_BLOCK = re.compile(r"blocks\.(\d+)\.")


class HieraEncoder(TimmInterface):
    """Patch embedding, position embedding and blocks, shared by both kinds of model.

    Parameter names are the authors', so their checkpoints load without renaming.

    Args:
        config: Sizes of the model; `stages` holds the stage table that follows from it.
        checkpointing: Recompute each block in the backward pass to save memory.
    """

    between_blocks: tuple[str, ...] = ("embed",)
    """Methods that do the tensor work around the blocks; see `compile_blocks`."""
    _drop_rates: Tensor

    def __init__(self, config: HieraConfig, checkpointing: bool = False) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = checkpointing
        self.stages = stage_table(config)
        self.order = UnitOrder(config)
        self.patch_embed = PatchEmbed(config)
        self.make_positions()
        self.blocks = self.make_blocks()
        layouts = block_table(config)
        rates = torch.tensor([layout.drop_path for layout in layouts]).view(1, -1, 1)
        # a buffer, so that it moves with the model; not persistent, so that no checkpoint holds it
        self.register_buffer("_drop_rates", rates, persistent=False)
        self._has_drop_path = [layout.drop_path > 0 for layout in layouts]

    def make_positions(self) -> None:
        """Create the position embeddings: one table, or one for space and one for time."""
        tokens, dim = self.config.token_grid, self.config.embed_dim
        if self.config.sep_pos_embed:
            self.pos_embed_spatial = nn.Parameter(torch.zeros(1, tokens[-2] * tokens[-1], dim))
            self.pos_embed_temporal = nn.Parameter(torch.zeros(1, tokens[0], dim))
        else:
            self.pos_embed = nn.Parameter(torch.zeros(1, math.prod(tokens), dim))

    def make_blocks(self) -> nn.ModuleList:
        """Build the blocks, first to last."""
        layouts, ratio = block_table(self.config), self.config.mlp_ratio
        return nn.ModuleList(HieraBlock(layout, ratio) for layout in layouts)

    @property
    def num_features(self) -> int:
        """Channels C of the last feature map."""
        return self.stages[-1].dim

    @property
    def num_layers(self) -> int:
        """Highest `layer_id`; learning rates are lr * decay ** (num_layers - layer_id(name))."""
        return self.config.depth + 1

    def layer_id(self, parameter_name: str) -> int:
        """Return a parameter's level for layer-wise learning-rate decay.

        Args:
            parameter_name: A name from `named_parameters()`.

        Returns:
            0 for the encoder's patch and position embeddings, i + 1 for block i, depth + 1 for
            everything after the blocks (norm, head, decoder).

        Raises:
            ConfigError: If the model has no such parameter.
        """
        try:
            self.get_parameter(parameter_name)
        except AttributeError as error:
            raise ConfigError(
                f"{parameter_name!r} is not a parameter of this model; see named_parameters()"
            ) from error
        if parameter_name.startswith(EMBEDDING):
            return 0
        block = _BLOCK.match(parameter_name)
        return int(block.group(1)) + 1 if block else self.num_layers

    def no_weight_decay(self) -> set[str]:
        """Return the names of the matrices without weight decay: the position embeddings."""
        return {name for name, _ in self.named_parameters() if name.startswith("pos_embed")}

    def position_embedding(self) -> Tensor:
        """Return the position embedding [1, C, (t,) h, w] in spatial order."""
        sizes = dict(zip("thw"[-len(self.config.token_grid) :], self.config.token_grid))
        if not self.config.sep_pos_embed:
            axes = " ".join(sizes)
            return rearrange(self.pos_embed, f"one ({axes}) c -> one c {axes}", **sizes)
        space = rearrange(self.pos_embed_spatial, "one (h w) c -> one c 1 h w", h=sizes["h"])
        time = rearrange(self.pos_embed_temporal, "one t c -> one c t 1 1")
        return space + time

    def embed(
        self, clips: Tensor, keep: Tensor | None = None, visible: int | None = None
    ) -> Tensor:
        """Embed clips as tokens in unit order.

        Args:
            clips: [B, C, (T,) H, W].
            keep: [B, units] bool, True = visible; only visible units are embedded.
            visible: Number of visible units of each clip, needed with `keep`.

        Returns:
            [B, units, tokens, C], or [B, visible, tokens, C] with `keep`.
        """
        positions = self.order.unroll(self.position_embedding())
        if keep is None or visible is None:
            return self.order.unroll(self.patch_embed(clips)) + positions
        chosen = indices_of_true(keep, visible)
        grids = self.patch_embed.embed_units(clips, keep, chosen)
        # F.embedding's gradient is deterministic on a GPU; that of indexing is not
        chosen_positions = F.embedding(chosen, positions.flatten(2)[0])
        tokens = self.order.unroll_units(grids).flatten(1).view_as(chosen_positions)
        return (tokens + chosen_positions).view(*chosen.shape, *positions.shape[2:])

    def encode(
        self,
        clips: Tensor,
        keep: Tensor | None = None,
        path_draws: Tensor | None = None,
        visible: int | None = None,
    ) -> list[Tensor]:
        """Return the output of each stage in unit order.

        Args:
            clips: [B, C, T, H, W], or [B, C, H, W] for an image model; normalised.
            keep: [B, units] bool, True = visible, the same number in each clip. Hidden units are
                blanked and left out.
            path_draws: [B, depth, 2], uniform in [0, 1), the draws of stochastic depth for each
                sample, block and branch in training; from torch's global generator by default.
            visible: Number of visible units of each clip, for graphs that cannot read `keep`, and
                so that the host need not wait for a GPU to count them.

        Returns:
            One tensor [B, units, tokens of a unit, C] for each stage.

        Raises:
            InputSizeError: If `clips`, `keep` or `path_draws` do not fit the model.
        """
        self._check_clips(clips)
        if keep is not None:
            visible = count_visible(
                keep,
                clips.shape[0],
                self.config.num_units,
                visible,
                trusted=visible is not None,
            )
        tokens = self.embed(clips, keep, visible)
        units = tokens.shape[1]
        tokens = tokens.flatten(1, 2)
        scales = self._branch_scales(tokens, path_draws)
        outputs = []
        ends = {stage.last_block for stage in self.stages}
        for index, block in enumerate(self.blocks):
            scale = scales[:, index] if scales is not None and self._has_drop_path[index] else None
            tokens = self.run_block(block, tokens, scale)
            if index in ends:
                outputs.append(tokens.view(tokens.shape[0], units, -1, tokens.shape[-1]))
        return outputs

    def run_block(
        self, block: Callable[..., Tensor], tokens: Tensor, branch_scale: Tensor | None
    ) -> Tensor:
        """Run one block, recomputed in the backward pass if `checkpointing` is on."""
        if self.checkpointing and torch.is_grad_enabled():
            # a block draws no random numbers, so no generator state is saved
            out = checkpoint(
                block, tokens, branch_scale, use_reentrant=False, preserve_rng_state=False
            )
        else:
            out = block(tokens, branch_scale)
        assert isinstance(out, Tensor)
        return out

    def forward_features(
        self, clips: Tensor, keep: Tensor | None = None, path_draws: Tensor | None = None
    ) -> Tensor:
        """Return the last feature map in spatial order, before the norm.

        Args:
            clips: [B, C, T, H, W], or [B, C, H, W] for an image model; normalised.
            keep: As in `encode`.
            path_draws: As in `encode`.

        Returns:
            [B, (t,) h, w, C]; with `keep`, [B, visible units, (t,) h, w, C].
        """
        return self.forward_intermediates(clips, keep, path_draws)[-1]

    def _branch_scales(self, tokens: Tensor, path_draws: Tensor | None) -> Tensor | None:
        """Return factors [B, depth, 2] of 0 (dropped) or 1 / (1 - rate), or None without drops."""
        if not self.training or not any(self._has_drop_path):
            return None
        shape = (tokens.shape[0], self.config.depth, 2)
        if path_draws is None:
            path_draws = torch.rand(shape, device=tokens.device)
        if path_draws.shape != shape:
            raise InputSizeError(
                f"path_draws is {list(path_draws.shape)}; expected {list(shape)}: "
                "clips x blocks x 2"
            )
        return (path_draws >= self._drop_rates).to(torch.float32) / (1 - self._drop_rates)

    def _check_clips(self, clips: Tensor) -> None:
        expected = (self.config.in_chans, *self.config.input_size)
        if clips.ndim != len(expected) + 1 or tuple(clips.shape[1:]) != expected:
            raise InputSizeError(
                f"clips are {list(clips.shape)}; this model takes "
                f"[B, {', '.join(map(str, expected))}]; resize them, or create the model with "
                "their input_size"
            )
        if not clips.is_floating_point():
            raise InputSizeError(
                f"clips are {clips.dtype}; the model takes normalised floats; see the eval "
                "transform"
            )


class Hiera(HieraEncoder):
    """Hiera classifier: encoder, mean over tokens, LayerNorm, dropout, linear layer.

    Args:
        config: Sizes of the model; with num_classes 0 there is no head.
        checkpointing: Recompute each block in the backward pass to save memory.
    """

    def __init__(self, config: HieraConfig, checkpointing: bool = False) -> None:
        super().__init__(config, checkpointing)
        self.global_pool: Literal["avg", "token", ""] = "avg"
        self.norm = nn.LayerNorm(self.num_features, eps=NORM_EPS)
        self.head = ClassifierHead(self.num_features, config.num_classes, config.head_dropout)
        init_weights(self, config)

    def forward(self, clips: Tensor, path_draws: Tensor | None = None) -> Tensor:
        """Return logits, in training and in evaluation; never probabilities.

        Args:
            clips: [B, C, T, H, W], or [B, C, H, W] for an image model; normalised.
            path_draws: As in `encode`.

        Returns:
            [B, K]; for a model of 0 classes, pooled features [B, C]. After
            `reset_classifier(…, "")`, [B, N, K] or [B, N, C] at the N places of the last map.

        Raises:
            InputSizeError: If `clips` do not fit the model.
        """
        if not self.global_pool:
            return self.forward_head(self.forward_features(clips, path_draws=path_draws))
        return self.forward_head(self.encode(clips, path_draws=path_draws)[-1])

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Classify feature maps.

        Args:
            features: [B, …, C], the result of `forward_features`.
            pre_logits: Return the normalised mean over all positions, before dropout and the
                linear layer.

        Returns:
            Logits [B, K], or [B, C] with `pre_logits`; without pooling, [B, N, K] or [B, N, C].
        """
        tokens = features.flatten(1, -2)
        pooled: Tensor = self.norm(tokens.mean(dim=1) if self.global_pool else tokens)
        return pooled if pre_logits else self.head(pooled)

    def get_classifier(self) -> nn.Module:
        """Return the linear layer, or `nn.Identity` for 0 classes."""
        return self.head.projection

    @property
    def num_classes(self) -> int:
        """Outputs of the head; 0 without one."""
        return self.config.num_classes

    @property
    def head_hidden_size(self) -> int:
        """Channels of the head's input, the result of `forward_head(…, pre_logits=True)`."""
        return self.num_features

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a newly initialised one, as in timm.

        Args:
            num_classes: Outputs of the new head; 0 for none.
            global_pool: "avg" for the mean over the last map, "" to keep its places apart; as
                before by default. Saved models pool.

        Raises:
            ConfigError: If `global_pool` is another one.
        """
        if global_pool not in (None, "avg", ""):
            raise ConfigError(f"global_pool={global_pool!r}: choose 'avg', or '' for no pooling")
        if global_pool is not None:
            self.global_pool = "avg" if global_pool else ""
        self.config = replace(self.config, num_classes=num_classes)
        head = ClassifierHead(self.num_features, num_classes, self.config.head_dropout)
        self.head = head.to(self.norm.weight.device, self.norm.weight.dtype).train(self.training)
        init_head(self.head, self.config)
