"""Masked autoencoder: encode the visible mask units, predict the hidden ones.

clips ── blank hidden units ─▶ patches ── visible units ─▶ blocks ─▶ fuse stages per unit
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
from hiera_video.models.hiera import HieraEncoder
from hiera_video.models.initial import init_weights
from hiera_video.models.layout import BlockLayout, HieraConfig
from hiera_video.models.linear import FusedLinear
from hiera_video.models.masking import choose_hidden_tokens, random_keep, running_cells
from hiera_video.models.registry import MaeConfig, num_visible
from hiera_video.models.targets import MaeTarget
from hiera_video.models.tokens import (
    CONVS,
    count_visible,
    flat_index,
    gather_rows,
    indices_of_true,
)


@dataclass(frozen=True, kw_only=True)
class MaeOutput:
    """Output of one masked-autoencoder forward pass.

    N is the number of tokens of the final grid, M the number of predicted tokens; both are in
    spatial order.
    """

    loss: Tensor
    """Mean squared error over the predicted tokens, a float32 scalar."""
    pred: Tensor
    """[B, M, size], predictions of the normalised target."""
    target: Tensor
    """[B, M, size], the normalised target."""
    keep: Tensor
    """[B, units] bool, True = visible to the encoder."""
    masked: Tensor
    """[B, N] bool, True = hidden and predicted: the tokens of `pred` and `target`, in order."""
    latent: Tensor
    """[B, visible tokens, C], the encoder's fused and normalised output, detached; for monitoring
    collapse."""


class MaskedAutoencoderHiera(HieraEncoder):
    """Encoder and decoder of masked pre-training (arXiv 2306.00989; table 11a for video).

    Parameter names are the authors', so their checkpoints load without renaming.

    Args:
        config: Sizes of the encoder.
        mae: Masking, decoder and target.
        checkpointing: Recompute each block in the backward pass to save memory.

    Raises:
        ConfigError: If the masking or target does not fit the input size.
    """

    unit_tokens: Tensor
    cell_tokens: Tensor
    between_blocks = ("embed", "fuse", "fill_grid", "compare")

    def __init__(self, config: HieraConfig, mae: MaeConfig, checkpointing: bool = False) -> None:
        super().__init__(config, checkpointing)
        self.mae = mae
        self.target = MaeTarget(config, mae)
        self.mask_group_size = _mask_group_size(config, mae)
        self.num_visible_units()  # reject a mask ratio that leaves nothing visible now
        dim, width = self.stages[-1].dim, mae.decoder_embed_dim
        self.encoder_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.multi_scale_fusion_heads = _fusion_heads(self, mae.multi_scale)
        self.decoder_embed = FusedLinear(dim, width)
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
        self.decoder_pred = FusedLinear(width, self.target.size)
        self._register_token_tables()
        init_weights(self, config)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        nn.init.trunc_normal_(self.decoder_pos_embed, std=0.02)

    def _register_token_tables(self) -> None:
        """Register the positions of each unit's tokens, and of its running cells."""
        grid = torch.arange(math.prod(self.config.final_grid)).view(1, 1, *self.config.final_grid)
        unit_tokens = self.order.unroll(grid, self.config.q_pool)[0, ..., 0]
        self.register_buffer("unit_tokens", unit_tokens, persistent=False)
        if self.mae.decoder_tokens == "running_cell":
            cells = running_cells(self.config, unit_tokens, self.mae.decoder_share)
            self.register_buffer("cell_tokens", cells, persistent=False)

    def no_weight_decay(self) -> set[str]:
        """Return the parameters of two or more dimensions without weight decay."""
        return super().no_weight_decay() | {"decoder_pos_embed", "mask_token"}

    def num_visible_units(self, mask_ratio: float | None = None) -> int:
        """Return how many units of a clip stay visible, by default at the configured ratio."""
        ratio = self.mae.mask_ratio if mask_ratio is None else mask_ratio
        groups = self.config.num_units // self.mask_group_size
        is_tube = self.mae.masking == "tube" and self.mask_group_size > 1
        return num_visible(groups, ratio, floor_hidden=is_tube) * self.mask_group_size

    def draw_keep(
        self,
        batch: int,
        generators: torch.Generator | list[torch.Generator] | None = None,
        mask_ratio: float | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draw masks as `mae.masking` configures them.

        Args:
            batch: Number of clips B.
            generators: One generator for the batch, or one per clip; torch's global one by default.
            mask_ratio: Share of hidden units, the configured one by default.
            device: Device of the result.

        Returns:
            keep [B, units], bool, True = visible.
        """
        units = self.config.num_units
        if self.mae.masking == "future":  # units are ordered frame by frame
            visible = torch.arange(units, device=device) < self.num_visible_units(mask_ratio)
            return visible.repeat(batch, 1)
        ratio = self.mae.mask_ratio if mask_ratio is None else mask_ratio
        return random_keep(
            batch, units, ratio, generators, tube_frames=self.mask_group_size, device=device
        )

    def forward(
        self,
        clips: Tensor,
        mask_ratio: float | None = None,
        keep: Tensor | None = None,
        path_draws: Tensor | None = None,
        decoder_draws: Tensor | None = None,
        visible: int | None = None,
    ) -> MaeOutput:
        """Reconstruct the hidden units of clips.

        Args:
            clips: [B, C, T, H, W], or [B, C, H, W] for an image model; normalised.
            mask_ratio: Share of hidden units, the configured one by default.
            keep: [B, units] bool, True = visible, the same number in each clip; drawn from torch's
                global generator by default.
            path_draws: As in `encode`.
            decoder_draws: [B, N], uniform in [0, 1), which choose the hidden tokens that are
                decoded with decoder_tokens="random", and whose first column is the phase of
                "running_cell"; from torch's global generator by default.
            visible: Number of units that `keep` shows of each clip. With it, the host need not wait
                for a GPU to count them; another number is then an error on the device. A compiled
                model needs it unless `keep` shows as many as `mask_ratio` leaves.

        Raises:
            ConfigError: If `mask_ratio` leaves no unit visible or none hidden.
            InputSizeError: If `clips`, `keep` or the draws do not fit the model.
        """
        expected = self.num_visible_units(mask_ratio)
        if keep is None:
            keep = self.draw_keep(clips.shape[0], mask_ratio=mask_ratio, device=clips.device)
            visible = expected
        else:
            visible = count_visible(
                keep,
                clips.shape[0],
                self.config.num_units,
                expected if visible is None else visible,
                trusted=visible is not None,
            )
            self._check_count(visible, expected if mask_ratio is not None else None, mask_ratio)
        latent = self.encode_visible(clips, keep, path_draws, visible)
        decoded, predicted = self.decode(latent, keep, decoder_draws)
        pred, target, loss = self.compare(decoded, clips, predicted)
        shape = (keep.shape[0], self.unit_tokens.numel())
        masked = torch.zeros(shape, dtype=torch.bool, device=clips.device)
        return MaeOutput(
            loss=loss,
            pred=pred,
            target=target,
            keep=keep,
            masked=masked.scatter(1, predicted, True),
            latent=latent.detach().flatten(1, 2),
        )

    def compare(
        self, decoded: Tensor, clips: Tensor, predicted: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return prediction and normalised target [B, M, size], and the mean squared error.

        Args:
            decoded: [B, M, width], the decoder's output at the predicted tokens.
            clips: [B, C, (T,) H, W].
            predicted: [B, M], positions in the final grid.
        """
        pred = self.decoder_pred(self.decoder_norm(decoded))
        with torch.no_grad():
            patches = gather_rows(self.target.patches(clips.float()), predicted)
            target = self.target.normalise(patches)
        return pred, target, F.mse_loss(pred.float(), target)

    def encode_visible(
        self,
        clips: Tensor,
        keep: Tensor,
        path_draws: Tensor | None = None,
        visible: int | None = None,
    ) -> Tensor:
        """Encode the visible units and fuse the maps of all stages; arguments as in `encode`.

        Returns:
            [B, visible units, tokens of a unit, C], fused and normalised.
        """
        return self.fuse(self.encode(clips, keep, path_draws, visible))

    def fuse(self, stages: list[Tensor]) -> Tensor:
        """Sum the maps of all stages that have a head on the final grid, and normalise them."""
        fused = stages[-1]
        for index in range(len(self.multi_scale_fusion_heads) - 1):
            fused = fused + self._fuse(index, stages[index])
        latent: Tensor = self.encoder_norm(fused)
        return latent

    def _fuse(self, index: int, tokens: Tensor) -> Tensor:
        """Project stage `index` onto the final grid.

        The fusion head is a convolution whose stride equals its kernel. In unit order that is a
        matrix product over the tokens that the remaining poolings would join.
        """
        head = self.multi_scale_fusion_heads[index]
        assert isinstance(head, nn.Conv2d | nn.Conv3d)
        strides = list(zip(self.order.axes, self.config.q_stride))
        kernel = {
            f"p{pooling}{axis}": stride
            for pooling in range(index + 1, self.config.q_pool + 1)
            for axis, stride in strides
        }
        spatial = " ".join(
            f"({' '.join(f'p{pooling}{axis}' for pooling in range(self.config.q_pool, index, -1))})"
            for axis in self.order.axes
        )
        joined = " ".join(kernel)
        weight = rearrange(head.weight, f"o c {spatial} -> o ({joined} c)", **kernel)
        rest = math.prod(self.config.unit_rest)
        return F.linear(rearrange(tokens, "b u (s r) c -> b u r (s c)", r=rest), weight, head.bias)

    def decode(
        self, latent: Tensor, keep: Tensor, decoder_draws: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run the decoder on visible latents and mask tokens.

        Args:
            latent: [B, visible units, tokens of a unit, C], the result of `encode_visible`.
            keep: [B, units] bool, True = visible.
            decoder_draws: As in `forward`.

        Returns:
            The decoder's output at the predicted tokens [B, M, width], and their ascending
            positions in the final grid [B, M].
        """
        tokens, predicted = self.fill_grid(latent, keep, decoder_draws)
        tokens = self.run_decoder(tokens)
        if self.mae.decoder_tokens == "all":
            return gather_rows(tokens, predicted), predicted
        return tokens[:, -predicted.shape[1] :], predicted

    def run_decoder(self, tokens: Tensor) -> Tensor:
        """Run the decoder's blocks on tokens [B, N, width]."""
        for block in self.decoder_blocks:
            tokens = self.run_block(block, tokens, None)
        return tokens

    def fill_grid(
        self, latent: Tensor, keep: Tensor, decoder_draws: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the decoder's input and the positions to predict [B, M]; arguments as in `decode`.

        The input is the final grid [B, N, width], with mask tokens at hidden places; where only
        some are decoded, the visible tokens, then those to predict.
        """
        batch, visible = latent.shape[:2]
        count = self.unit_tokens.numel()
        visible_tokens = self.unit_tokens[indices_of_true(keep, visible)].flatten(1)
        predicted = self._predicted_positions(keep, visible, decoder_draws)
        rows = self.decoder_embed(latent)
        blank = self.mask_token.to(rows.dtype).view(1, -1).repeat(batch * count, 1)
        filled = blank.index_copy(0, flat_index(visible_tokens, count), rows.flatten(0, 2))
        tokens = filled.view(batch, count, -1) + self.decoder_pos_embed
        if self.mae.decoder_tokens != "all":
            tokens = gather_rows(tokens, torch.cat([visible_tokens, predicted], dim=1))
        return tokens, predicted

    def _predicted_positions(self, keep: Tensor, visible: int, draws: Tensor | None) -> Tensor:
        """Return the ascending positions [B, M] in the final grid of the tokens to predict."""
        hidden_units = indices_of_true(~keep, keep.shape[1] - visible)
        if self.mae.decoder_tokens == "all":
            return self.unit_tokens[hidden_units].flatten(1).sort(dim=1).values
        shape = (keep.shape[0], self.unit_tokens.numel())
        draws = torch.rand(shape, device=keep.device) if draws is None else draws
        if draws.shape != shape:
            raise InputSizeError(
                f"decoder_draws is {list(draws.shape)}; expected {list(shape)}: clips x tokens"
            )
        if self.mae.decoder_tokens == "running_cell":
            phases = (draws[:, :1] * len(self.cell_tokens)).long()
            return self.cell_tokens[phases, hidden_units].flatten(1).sort(dim=1).values
        hidden = self.unit_tokens[hidden_units].flatten(1)
        masked = torch.zeros(shape, dtype=torch.bool, device=keep.device).scatter(1, hidden, True)
        count = max(1, int(hidden.shape[1] * self.mae.decoder_share))
        return choose_hidden_tokens(masked, count, draws)

    def pictures(self, clips: Tensor, output: MaeOutput) -> tuple[Tensor, Tensor, Tensor]:
        """Return the original, visible and reconstructed clips; see `MaeTarget.pictures`.

        Args:
            clips: [B, C, (T,) H, W], the clips that gave `output`.
            output: Result of `forward`.
        """
        masked = output.masked
        places = flat_index(indices_of_true(masked, output.pred.shape[1]), masked.shape[1])
        predicted = output.target.new_zeros(masked.numel(), output.pred.shape[2])
        predicted = predicted.index_copy(0, places, output.pred.detach().float().flatten(0, 1))
        return self.target.pictures(clips, predicted.view(*masked.shape, -1), masked)

    def _check_count(self, count: int, expected: int | None, mask_ratio: float | None) -> None:
        if count == self.config.num_units:
            raise InputSizeError(
                "keep hides no unit; at least one must be hidden, or there is nothing to predict"
            )
        if expected is not None and count != expected:
            raise InputSizeError(
                f"keep shows {count} units a clip but mask_ratio={mask_ratio} means {expected}; "
                "pass one of the two"
            )


def _mask_group_size(config: HieraConfig, mae: MaeConfig) -> int:
    """Return how many units are hidden together: one, one place in all frames, or a whole frame."""
    if len(config.unit_grid) == 2:
        if mae.masking == "future":
            raise ConfigError("mae.masking='future': an image has no time axis; use 'random'")
        return 1
    frames = config.unit_grid[0]
    return {"random": 1, "tube": frames, "future": config.num_units // frames}[mae.masking]


def _fusion_heads(model: HieraEncoder, multi_scale: bool) -> nn.ModuleList:
    """Build a convolution for each stage that is pooled later, and the identity for the last one.

    Without `multi_scale`, the identity alone.

    Kernel and stride equal the later poolings. Other stages at the final resolution have no head.
    """
    config = model.config
    heads: list[nn.Module] = []
    for stage in model.stages[: config.q_pool if multi_scale else 0]:
        kernel = tuple(tokens // rest for tokens, rest in zip(stage.unit_shape, config.unit_rest))
        conv = CONVS[len(kernel)]
        heads.append(conv(stage.dim, model.stages[-1].dim, kernel_size=kernel, stride=kernel))  # type: ignore[arg-type]
    return nn.ModuleList([*heads, nn.Identity()])
