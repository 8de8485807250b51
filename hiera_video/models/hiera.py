"""Hiera for video and images: the encoder that classifier and masked autoencoder share, and the classifier."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hiera_video.errors import ConfigError, InputSizeError
from hiera_video.models.blocks import NORM_EPS, HieraBlock
from hiera_video.models.heads import Head
from hiera_video.models.layout import HieraConfig, block_table, stage_table
from hiera_video.models.tokens import (
    PatchEmbed,
    UnitOrder,
    hide_pixels,
    true_positions,
    visible_count,
)

_BLOCK = re.compile(r"blocks\.(\d+)\.")
_BOTTOM = ("pos_embed", "patch_embed")


class HieraEncoder(nn.Module):
    """Patch embedding, position embedding and blocks. Parameter names are the authors'."""

    _drop_rates: Tensor

    def __init__(self, config: HieraConfig, checkpointing: bool = False) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = checkpointing
        self.stages = stage_table(config)
        self.order = UnitOrder(config)
        self.patch_embed = PatchEmbed(config)
        tokens = config.token_grid
        if config.sep_pos_embed:
            self.pos_embed_spatial = nn.Parameter(
                torch.zeros(1, tokens[-2] * tokens[-1], config.embed_dim)
            )
            self.pos_embed_temporal = nn.Parameter(torch.zeros(1, tokens[0], config.embed_dim))
        else:
            self.pos_embed = nn.Parameter(torch.zeros(1, math.prod(tokens), config.embed_dim))
        layouts = block_table(config)
        self.blocks = nn.ModuleList(HieraBlock(layout, config.mlp_ratio) for layout in layouts)
        rates = torch.tensor([layout.drop_path for layout in layouts]).view(1, -1, 1)
        self.register_buffer(
            "_drop_rates", rates, persistent=False
        )  # beside the weights, never in a checkpoint
        self._drops = [layout.drop_path > 0 for layout in layouts]

    @property
    def num_features(self) -> int:
        """Channels C of the last map."""
        return self.stages[-1].dim

    @property
    def num_layers(self) -> int:
        """The highest `layer_id`; a layer's learning rate is lr * decay ** (num_layers - layer_id(name))."""
        return self.config.depth + 1

    def layer_id(self, parameter_name: str) -> int:
        """Level for layer-wise learning rate decay: 0 for patch and every position embedding of the encoder, i + 1 for
        block i, depth + 1 for what follows the blocks (norm, head, decoder)."""
        try:
            self.get_parameter(parameter_name)
        except AttributeError as error:
            raise ConfigError(
                f"{parameter_name!r} is no parameter of this model; take named_parameters()"
            ) from error
        if parameter_name.startswith(_BOTTOM):
            return 0
        block = _BLOCK.match(parameter_name)
        return int(block.group(1)) + 1 if block else self.num_layers

    def no_weight_decay(self) -> set[str]:
        """Parameters of two or more dimensions that weight decay spares: the position embeddings."""
        return {name for name in self._parameter_names() if name.startswith("pos_embed")}

    def _parameter_names(self) -> set[str]:
        return {name for name, _ in self.named_parameters()}

    def position_embedding(self) -> Tensor:
        """[1, C, (t,) h, w], in spatial order."""
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
        """Clips [B, C, (T,) H, W] to tokens [B, units, tokens, C] in unit order; with `keep`, `visible` units alone."""
        positions = self.order.unroll(self.position_embedding())
        if keep is None or visible is None:
            return self.order.unroll(self.patch_embed(clips)) + positions
        seen = true_positions(keep, visible)
        grids = self.patch_embed.units(hide_pixels(clips, keep, self.config.unit_grid), seen)
        # an embedding's gradient is the same on every run, which plain indexing's is not on a GPU
        shown = F.embedding(seen, positions.flatten(2)[0])
        tokens = self.order.unroll_units(grids).flatten(1).view_as(shown) + shown
        return tokens.view(*seen.shape, *positions.shape[2:])

    def encode(
        self,
        clips: Tensor,
        keep: Tensor | None = None,
        path_draws: Tensor | None = None,
        visible: int | None = None,
    ) -> list[Tensor]:
        """The output of each stage, [B, units, tokens of a unit, C] in unit order.

        clips: [B, C, T, H, W], or [B, C, H, W] for an image model; `InputSizeError` where they do not fit.
        keep: [B, units] bool, True = visible; hidden units are blanked and dropped. Equally many a clip.
        path_draws: [B, depth, 2] uniform in [0, 1), from which stochastic depth decides, sample by sample, in
        training; drawn from torch's global generator where not given.
        visible: what `keep` shows of each clip, for a graph that may not read it."""
        self._check(clips)
        if keep is not None:
            visible = visible_count(keep, clips.shape[0], self.config.num_units, visible)
        tokens = self.embed(clips, keep, visible)
        units = tokens.shape[1]
        tokens = tokens.flatten(1, 2)
        scales = self._branch_scales(tokens, path_draws)
        outputs = []
        ends = {stage.last_block for stage in self.stages}
        for index, block in enumerate(self.blocks):
            scale = scales[:, index] if scales is not None and self._drops[index] else None
            tokens = self.run_block(block, tokens, scale)
            if index in ends:
                outputs.append(tokens.view(tokens.shape[0], units, -1, tokens.shape[-1]))
        return outputs

    def run_block(self, block: nn.Module, tokens: Tensor, branch_scale: Tensor | None) -> Tensor:
        """One block; recomputed in the backward pass where `checkpointing` is on."""
        if self.checkpointing and torch.is_grad_enabled():
            # nothing inside a block is random, so there is no generator's state to keep
            out = checkpoint(
                block, tokens, branch_scale, use_reentrant=False, preserve_rng_state=False
            )
        else:
            out = block(tokens, branch_scale)
        assert isinstance(out, Tensor)
        return out

    def forward_intermediates(
        self, clips: Tensor, keep: Tensor | None = None, path_draws: Tensor | None = None
    ) -> list[Tensor]:
        """One map a stage in spatial order, [B, (t,) h, w, C]; with `keep`, [B, visible units, (t,) h, w, C]."""
        outputs = self.encode(clips, keep, path_draws)
        roll = self.order.reroll if keep is None else self.order.reroll_units
        return [roll(output, stage.poolings) for stage, output in zip(self.stages, outputs)]

    def forward_features(
        self, clips: Tensor, keep: Tensor | None = None, path_draws: Tensor | None = None
    ) -> Tensor:
        """The last map in spatial order, before any norm: [B, (t,) h, w, C], or per visible unit as above."""
        return self.forward_intermediates(clips, keep, path_draws)[-1]

    def _branch_scales(self, tokens: Tensor, path_draws: Tensor | None) -> Tensor | None:
        """[B, depth, 2] of 0 (dropped) or 1 / (1 - rate), or None where nothing can be dropped."""
        if not self.training or not any(self._drops):
            return None
        shape = (tokens.shape[0], self.config.depth, 2)
        if path_draws is None:
            path_draws = torch.rand(shape, device=tokens.device)
        if path_draws.shape != shape:
            raise InputSizeError(
                f"path_draws is {list(path_draws.shape)}; it has to be {list(shape)}: clips x blocks x 2"
            )
        return (path_draws >= self._drop_rates).to(torch.float32) / (1 - self._drop_rates)

    def _check(self, clips: Tensor) -> None:
        expected = (self.config.in_chans, *self.config.input_size)
        if clips.ndim != len(expected) + 1 or tuple(clips.shape[1:]) != expected:
            raise InputSizeError(
                f"clips are {list(clips.shape)}; this model takes [B, {', '.join(map(str, expected))}]; resize them, "
                "or create the model with the input_size that they have"
            )
        if not clips.is_floating_point():
            raise InputSizeError(
                f"clips are {clips.dtype}; the model takes normalised floats, see the eval transform"
            )


class Hiera(HieraEncoder):
    """The classifier: encoder, mean over tokens, LayerNorm, dropout, linear layer."""

    def __init__(self, config: HieraConfig, checkpointing: bool = False) -> None:
        super().__init__(config, checkpointing)
        self.norm = nn.LayerNorm(self.num_features, eps=NORM_EPS)
        self.head = Head(self.num_features, config.num_classes, config.head_dropout)
        init_weights(self, config)

    def forward(self, clips: Tensor, path_draws: Tensor | None = None) -> Tensor:
        """Clips [B, C, T, H, W] (images [B, C, H, W]) to logits [B, K], in training and evaluation; never
        probabilities. Of 0 classes, to pooled features [B, C]. `path_draws` as in `encode`."""
        return self.forward_head(self.encode(clips, path_draws=path_draws)[-1])

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """The last map [B, …, C], as `forward_features` gives it, to logits [B, K]; `pre_logits`: to what the linear
        layer sees, the normed mean over all places [B, C]."""
        pooled: Tensor = self.norm(features.flatten(1, -2).mean(dim=1))
        return pooled if pre_logits else self.head(pooled)

    def get_classifier(self) -> nn.Module:
        """The linear layer, or `nn.Identity` of 0 classes."""
        return self.head.projection

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head by a fresh one; 0 classes: by none."""
        self.config = replace(self.config, num_classes=num_classes)
        head = Head(self.num_features, num_classes, self.config.head_dropout)
        self.head = head.to(self.norm.weight.device, self.norm.weight.dtype).train(self.training)
        _init_module(self.head.projection, self.config)
        _scale_head(self.head, self.config)


@torch.no_grad()
def init_weights(model: HieraEncoder, config: HieraConfig) -> None:
    """Draw every initial weight from torch's global generator, as `config.init` says (sources: see the field)."""
    for name, parameter in model.named_parameters():
        if name.startswith("pos_embed"):
            nn.init.trunc_normal_(parameter, std=0.02)
    for module in model.modules():
        _init_module(module, config)
    weight = model.patch_embed.proj.weight
    if (
        config.init == "xavier"
    ):  # as if the patch embedding were a linear layer on flattened patches
        nn.init.xavier_uniform_(weight.view(weight.shape[0], -1))
    else:
        nn.init.trunc_normal_(weight, std=0.02)
    if isinstance(model, Hiera):
        _scale_head(model.head, config)


@torch.no_grad()
def _init_module(module: nn.Module, config: HieraConfig) -> None:
    bias = 0.0 if config.init == "xavier" else 0.02
    if isinstance(module, nn.Linear):
        if config.init == "xavier":
            nn.init.xavier_uniform_(module.weight)
        else:
            nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.constant_(module.bias, bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.constant_(module.bias, bias)


@torch.no_grad()
def _scale_head(head: Head, config: HieraConfig) -> None:
    for parameter in head.parameters():
        parameter.mul_(config.head_init_scale)
