"""The masked autoencoder: most mask units are hidden, the encoder sees the rest, a decoder predicts what is hidden.

clips ── blank hidden units ─▶ patches ── visible units alone ─▶ blocks ─▶ every pooled stage fused per unit
  │                                                                              │
  └─▶ target of hidden tokens ◀── loss ──▶ prediction ◀── decoder ◀── mask token where hidden
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hiera_video.errors import ConfigError, InputSizeError
from hiera_video.models.blocks import NORM_EPS, HieraBlock
from hiera_video.models.hiera import HieraEncoder, init_weights
from hiera_video.models.layout import BlockLayout, HieraConfig
from hiera_video.models.linear import Linear
from hiera_video.models.masking import random_hidden, random_keep, running_cells
from hiera_video.models.registry import MaeConfig, num_visible
from hiera_video.models.targets import Target
from hiera_video.models.tokens import CONVS, flat_index, take_rows, true_positions, visible_count

__all__ = ["MaeOutput", "MaskedAutoencoderHiera", "random_keep"]


@dataclass(frozen=True, kw_only=True)
class MaeOutput:
    """What one step of the masked autoencoder gives. N = tokens of the final grid, in spatial order; M = predicted ones."""

    loss: Tensor
    """Mean squared error over predicted tokens, a scalar in float32."""
    pred: Tensor
    """[B, M, size] prediction of the normalised target, tokens in spatial order."""
    target: Tensor
    """[B, M, size] what it is compared with."""
    keep: Tensor
    """[B, units] bool, True = visible to the encoder."""
    masked: Tensor
    """[B, N] bool, True = hidden and predicted; `pred` and `target` are these tokens, in order."""
    latent: Tensor
    """[B, visible tokens, C] the encoder's fused and normed output, detached: what collapse monitors look at."""


class MaskedAutoencoderHiera(HieraEncoder):
    """Encoder and decoder of the pre-training. Parameter names are the authors'."""

    unit_tokens: Tensor
    cell_tokens: Tensor

    def __init__(self, config: HieraConfig, mae: MaeConfig, checkpointing: bool = False) -> None:
        super().__init__(config, checkpointing)
        self.mae = mae
        self.target = Target(config, mae)
        self.hidden_together = _hidden_together(config, mae)
        self.visible_units(
            mae.mask_ratio
        )  # a ratio that leaves nothing is told now, not at the first step
        dim, width = self.stages[-1].dim, mae.decoder_embed_dim
        self.encoder_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.multi_scale_fusion_heads = _fusion_heads(self)
        self.decoder_embed = Linear(dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, math.prod(config.final_grid), width))
        layout = BlockLayout(
            dim_in=width,
            dim_out=width,
            heads=mae.decoder_num_heads,
            attention="global",
            unit_tokens_in=1,
            unit_tokens_out=1,
            drop_path=0.0,
        )
        self.decoder_blocks = nn.ModuleList(
            HieraBlock(layout, config.mlp_ratio) for _ in range(mae.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.decoder_pred = Linear(width, self.target.size)
        self._register_tables()
        init_weights(self, config)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        nn.init.trunc_normal_(self.decoder_pos_embed, std=0.02)

    def _register_tables(self) -> None:
        """Places of each unit's tokens in the final grid, and of those that the decoder may be limited to."""
        grid = torch.arange(math.prod(self.config.final_grid)).view(1, 1, *self.config.final_grid)
        unit_tokens = self.order.unroll(grid, self.config.q_pool)[0, ..., 0]
        self.register_buffer("unit_tokens", unit_tokens, persistent=False)
        if self.mae.decoder_tokens == "running_cell":
            cells = running_cells(self.config, unit_tokens, self.mae.decoder_share)
            self.register_buffer("cell_tokens", cells, persistent=False)

    def no_weight_decay(self) -> set[str]:
        return super().no_weight_decay() | {"decoder_pos_embed", "mask_token"}

    def visible_units(self, mask_ratio: float | None = None) -> int:
        """Units of a clip that stay visible at a ratio (the configured one by default)."""
        ratio = self.mae.mask_ratio if mask_ratio is None else mask_ratio
        return (
            num_visible(self.config.num_units // self.hidden_together, ratio) * self.hidden_together
        )

    def draw_keep(
        self,
        batch: int,
        generators: torch.Generator | list[torch.Generator] | None = None,
        mask_ratio: float | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Masks as this model is configured, keep [batch, units] bool, True = visible; see `random_keep`."""
        units = self.config.num_units
        if self.mae.masking == "future":  # units lie frame by frame
            return (torch.arange(units, device=device) < self.visible_units(mask_ratio)).repeat(
                batch, 1
            )
        ratio = self.mae.mask_ratio if mask_ratio is None else mask_ratio
        return random_keep(
            batch, units, ratio, generators, tube_frames=self.hidden_together, device=device
        )

    def forward(
        self,
        clips: Tensor,
        mask_ratio: float | None = None,
        keep: Tensor | None = None,
        path_draws: Tensor | None = None,
        decoder_draws: Tensor | None = None,
    ) -> MaeOutput:
        """clips: [B, C, T, H, W] (images [B, C, H, W]), normalised.

        mask_ratio: share of hidden units, the configured one by default. keep: [B, units] bool, True = visible, equally
        many in each clip; drawn from torch's global generator by default. path_draws: as in `encode`. decoder_draws:
        [B, N] uniform, which hidden tokens are decoded with decoder_tokens="random"; drawn globally by default.
        `ConfigError` for a bad ratio, `InputSizeError` for clips or keep that do not fit."""
        visible = self.visible_units(mask_ratio)
        if keep is None:
            keep = self.draw_keep(clips.shape[0], mask_ratio=mask_ratio, device=clips.device)
        else:
            counted = visible_count(keep, clips.shape[0], self.config.num_units, visible)
            self._check_count(counted, visible if mask_ratio is not None else None, mask_ratio)
            visible = counted
        latent = self.encode_visible(clips, keep, path_draws, visible)
        decoded, predicted = self.decode(latent, keep, decoder_draws)
        pred = self.decoder_pred(self.decoder_norm(decoded))
        with torch.no_grad():
            target = self.target.normalised(
                take_rows(self.target.patches(clips.float()), predicted)
            )
        loss = F.mse_loss(pred.float(), target)
        tokens = torch.zeros(
            keep.shape[0], self.unit_tokens.numel(), dtype=torch.bool, device=clips.device
        )
        masked = tokens.scatter(1, predicted, True)
        return MaeOutput(
            loss=loss,
            pred=pred,
            target=target,
            keep=keep,
            masked=masked,
            latent=latent.detach().flatten(1, 2),
        )

    def encode_visible(
        self,
        clips: Tensor,
        keep: Tensor,
        path_draws: Tensor | None = None,
        visible: int | None = None,
    ) -> Tensor:
        """Fused and normed latents of the visible units, [B, visible units, tokens of a unit, C]."""
        stages = self.encode(clips, keep, path_draws, visible)
        fused = stages[-1]
        for index in range(self.config.q_pool):
            fused = fused + self._fuse(index, stages[index])
        latent: Tensor = self.encoder_norm(fused)
        return latent

    def _fuse(self, index: int, tokens: Tensor) -> Tensor:
        """Stage `index` brought to the final grid: a convolution whose stride is its kernel, which in unit order is a
        matrix product over the tokens that the poolings would have joined."""
        head = self.multi_scale_fusion_heads[index]
        assert isinstance(head, nn.Conv2d | nn.Conv3d)
        axes = self.order.axes
        kernel = {
            f"p{n}{a}": s
            for n in range(index + 1, self.config.q_pool + 1)
            for a, s in self._strides()
        }
        spatial = " ".join(
            f"({' '.join(f'p{n}{a}' for n in range(self.config.q_pool, index, -1))})" for a in axes
        )
        joined = " ".join(kernel)
        weight = rearrange(head.weight, f"o c {spatial} -> o ({joined} c)", **kernel)
        rest = math.prod(self.config.unit_rest)
        return F.linear(rearrange(tokens, "b u (s r) c -> b u r (s c)", r=rest), weight, head.bias)

    def _strides(self) -> list[tuple[str, int]]:
        return list(zip(self.order.axes, self.config.q_stride))

    def decode(
        self, latent: Tensor, keep: Tensor, decoder_draws: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Latents [B, visible units, tokens of a unit, C] to the decoder's output at the tokens to predict
        [B, M, width], and the places of those in the final grid [B, M], ascending."""
        batch, visible = latent.shape[:2]
        count = self.unit_tokens.numel()
        seen = self.unit_tokens[true_positions(keep, visible)].flatten(1)
        predicted = self._to_predict(keep, visible, decoder_draws)
        rows = self.decoder_embed(latent)
        blank = self.mask_token.to(rows.dtype).view(1, -1).repeat(batch * count, 1)
        tokens = blank.index_copy(0, flat_index(seen, count), rows.flatten(0, 2)).view(
            batch, count, -1
        )
        tokens = tokens + self.decoder_pos_embed
        whole = self.mae.decoder_tokens == "all"
        if not whole:
            tokens = take_rows(tokens, torch.cat([seen, predicted], dim=1))
        for block in self.decoder_blocks:
            tokens = self.run_block(block, tokens, None)
        return (take_rows(tokens, predicted) if whole else tokens[:, seen.shape[1] :]), predicted

    def _to_predict(self, keep: Tensor, visible: int, draws: Tensor | None) -> Tensor:
        """Places [B, M] in the final grid, ascending, of the hidden tokens that are decoded."""
        hidden_units = true_positions(~keep, keep.shape[1] - visible)
        table = self.cell_tokens if self.mae.decoder_tokens == "running_cell" else self.unit_tokens
        hidden = table[hidden_units].flatten(1)
        if self.mae.decoder_tokens != "random":
            return hidden.sort(dim=1).values
        shape = (keep.shape[0], self.unit_tokens.numel())
        draws = torch.rand(shape, device=keep.device) if draws is None else draws
        if draws.shape != shape:
            raise InputSizeError(
                f"decoder_draws is {list(draws.shape)}; it has to be {list(shape)}, clips x tokens"
            )
        masked = torch.zeros(shape, dtype=torch.bool, device=keep.device).scatter(1, hidden, True)
        return random_hidden(masked, max(1, int(hidden.shape[1] * self.mae.decoder_share)), draws)

    def pictures(self, clips: Tensor, output: MaeOutput) -> tuple[Tensor, Tensor, Tensor]:
        """Original, visible, and reconstructed clips for the eye; see `Target.pictures`."""
        places = flat_index(
            true_positions(output.masked, output.pred.shape[1]), output.masked.shape[1]
        )
        predicted = output.target.new_zeros(output.masked.numel(), output.pred.shape[2])
        predicted = predicted.index_copy(0, places, output.pred.detach().float().flatten(0, 1))
        return self.target.pictures(clips, predicted.view(*output.masked.shape, -1), output.masked)

    def _check_count(self, counted: int, expected: int | None, mask_ratio: float | None) -> None:
        if counted == self.config.num_units:
            raise InputSizeError(
                "keep hides no unit; at least one has to be hidden, or there is nothing to predict"
            )
        if expected is not None and counted != expected:
            raise InputSizeError(
                f"keep shows {counted} units a clip but mask_ratio={mask_ratio} means {expected}; give one of the two"
            )


def _hidden_together(config: HieraConfig, mae: MaeConfig) -> int:
    """How many units share their fate: one, a place's in all frames, or a frame's."""
    if len(config.unit_grid) == 2:
        if mae.masking == "future":
            raise ConfigError("mae.masking='future': an image has no time; use 'random'")
        return 1
    frames = config.unit_grid[0]
    return {"random": 1, "tube": frames, "future": config.num_units // frames}[mae.masking]


def _fusion_heads(model: HieraEncoder) -> nn.ModuleList:
    """One convolution for each stage that is pooled later, kernel = stride = what is pooled away, then the identity for
    the last stage (whose resolution is final; a stage of the same resolution before it is not used)."""
    config = model.config
    heads: list[nn.Module] = []
    for stage in model.stages[: config.q_pool]:
        kernel = tuple(tokens // rest for tokens, rest in zip(stage.unit_shape, config.unit_rest))
        conv = CONVS[len(kernel)]
        heads.append(conv(stage.dim, model.stages[-1].dim, kernel_size=kernel, stride=kernel))  # type: ignore[arg-type]
    return nn.ModuleList([*heads, nn.Identity()])
