"""Interface that Hiera shares with timm's models: feature maps, layer groups, checkpointing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

from torch import Tensor, nn

from hiera_video.errors import ConfigError
from hiera_video.models.layout import HieraConfig, StageLayout
from hiera_video.models.tokens import UnitOrder

EMBEDDING = ("pos_embed", "patch_embed", "cls_token")
"""Beginnings of the names of what stands before the blocks."""


class FeatureInfo(list[dict[str, Any]]):
    """One dict for each stage, with timm's accessors."""

    def channels(self) -> list[int]:
        """Return the channels of each map."""
        return [stage["num_chs"] for stage in self]

    def reduction(self) -> list[int]:
        """Return the pixels that a place of each map stands for, along the last axis."""
        return [stage["reduction"] for stage in self]

    def module_name(self) -> list[str]:
        """Return the name of the block whose output each map is."""
        return [stage["module"] for stage in self]


class TimmInterface(nn.Module):
    """Part of `HieraEncoder` that timm's tools read; the attributes are the encoder's."""

    config: HieraConfig
    stages: tuple[StageLayout, ...]
    order: UnitOrder
    checkpointing: bool
    encode: Callable[..., list[Tensor]]

    @property
    def feature_info(self) -> FeatureInfo:
        """Each stage's channels, pixels of a place along the last axis, and last block, as in timm.

        The keys are `num_chs`, `reduction` and `module`.
        """
        config = self.config
        return FeatureInfo(
            {
                "num_chs": stage.dim,
                "reduction": config.patch_stride[-1] * config.q_stride[-1] ** stage.poolings,
                "module": f"blocks.{stage.last_block}",
            }
            for stage in self.stages
        )

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return patterns that put parameters in groups, for timm's layer decay.

        The groups are those of `layer_id`: the embeddings, each block, and all that follows, which
        timm puts in the last group because no pattern matches.

        Args:
            coarse: A group for each stage instead of each block.
        """
        embedding = rf"(?:{'|'.join(EMBEDDING)})"
        if not coarse:
            return {"stem": embedding, "blocks": [(r"blocks\.(\d+)\.", None)]}
        stages = []
        for number, stage in enumerate(self.stages):
            blocks = "|".join(map(str, range(stage.first_block, stage.last_block + 1)))
            stages.append((rf"blocks\.(?:{blocks})\.", (number,)))
        return {"stem": embedding, "blocks": stages}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass to save memory, or stop doing so."""
        self.checkpointing = enable

    @overload
    def forward_intermediates(
        self,
        clips: Tensor,
        keep: Tensor | None = ...,
        path_draws: Tensor | None = ...,
        *,
        indices: int | Sequence[int] | None = ...,
        norm: bool = ...,
        output_fmt: Literal["NHWC", "NCHW"] = ...,
        intermediates_only: Literal[True] = ...,
    ) -> list[Tensor]: ...

    @overload
    def forward_intermediates(
        self,
        clips: Tensor,
        keep: Tensor | None = ...,
        path_draws: Tensor | None = ...,
        *,
        indices: int | Sequence[int] | None = ...,
        norm: bool = ...,
        output_fmt: Literal["NHWC", "NCHW"] = ...,
        intermediates_only: Literal[False],
    ) -> tuple[Tensor, list[Tensor]]: ...

    def forward_intermediates(
        self,
        clips: Tensor,
        keep: Tensor | None = None,
        path_draws: Tensor | None = None,
        *,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        output_fmt: Literal["NHWC", "NCHW"] = "NHWC",
        intermediates_only: bool = True,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the feature map of each stage in spatial order.

        Args:
            clips: [B, C, T, H, W], or [B, C, H, W] for an image model; normalised.
            keep: As in `encode`.
            path_draws: As in `encode`.
            indices: Stages to return, counted from 0, or from the end if negative; a number n for
                the last n; all by default. Maps are in the order of the network.
            norm: False, as in timm's Hiera; no stage but the last has a norm.
            output_fmt: "NHWC" for channels last, "NCHW" for channels before (t,) h, w.
            intermediates_only: Return the maps alone. If False, return the result of
                `forward_features` and the maps, which is timm's default.

        Returns:
            One tensor [B, (t,) h, w, C] for each stage; with `keep`, [B, visible units, (t,) h, w,
            C], the tokens of each unit in spatial order.

        Raises:
            ConfigError: If there is no such stage or format, or `norm` is True.
            InputSizeError: If the inputs do not fit the model.
        """
        chosen = self._choose_stages(indices)
        if output_fmt not in ("NHWC", "NCHW"):
            raise ConfigError(f"output_fmt={output_fmt!r}: choose NHWC or NCHW")
        if norm:
            raise ConfigError(
                "norm=True: only the last stage has a norm; apply model.norm to its map, channels "
                "last"
            )
        outputs = self.encode(clips, keep, path_draws)
        roll = self.order.reroll if keep is None else self.order.reroll_units
        maps = [roll(outputs[index], self.stages[index].poolings) for index in chosen]
        axes = len(self.config.input_size)
        shown = maps if output_fmt == "NHWC" else [one.movedim(-1, -1 - axes) for one in maps]
        if intermediates_only:
            return shown
        return roll(outputs[-1], self.stages[-1].poolings), shown

    def _choose_stages(self, indices: int | Sequence[int] | None) -> list[int]:
        """Return the stages that `indices` name, in the order of the network."""
        count = len(self.stages)
        if indices is None:
            indices = count
        wanted = range(-indices, 0) if isinstance(indices, int) else indices
        if not wanted or not all(-count <= index < count for index in wanted):
            raise ConfigError(
                f"indices={indices}: the model has {count} stages, 0 to {count - 1}; give some of "
                f"them, or a number from 1 to {count} for the last ones"
            )
        return sorted({index % count for index in wanted})
