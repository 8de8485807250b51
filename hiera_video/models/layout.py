"""Configuration of a Hiera, and the stage and block tables that follow from it. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hiera_video.errors import InputSizeError
from hiera_video.utils.checks import require

AXES = {2: ("height", "width"), 3: ("frames", "height", "width")}
AttentionKind = Literal["unit", "global"]


@dataclass(frozen=True, kw_only=True)
class HieraConfig:
    """Shape of an encoder and its classifier.

    Sizes are (frames, height, width), or (height, width) for images. The defaults are Hiera-B for
    video (arXiv 2306.00989, table 2).
    """

    input_size: tuple[int, ...] = (16, 224, 224)
    """Frames and pixels of a clip."""
    in_chans: int = 3
    """Channels of the input."""
    num_classes: int = 400
    """Outputs of the head; with 0, a classifier returns pooled features. Masked autoencoders have
    no head."""
    embed_dim: int = 96
    """Channels of stage 1; each later stage doubles them."""
    num_heads: int = 1
    """Attention heads of stage 1; each later stage doubles them."""
    stages: tuple[int, ...] = (2, 3, 16, 3)
    """Blocks per stage."""
    q_pool: int = 3
    """Number of stage transitions, from the first, at which the queries are pooled."""
    q_stride: tuple[int, ...] = (1, 2, 2)
    """Stride of a query pooling along each axis."""
    mask_unit_size: tuple[int, ...] = (1, 8, 8)
    """Tokens of stage 1 in a mask unit: masked together, and attended together in unit
    attention."""
    mask_unit_attn: tuple[bool, ...] = (True, True, False, False)
    """For each stage, attention within mask units (True) or over the clip (False); see
    `StageLayout`."""
    patch_kernel: tuple[int, ...] = (3, 7, 7)
    """Kernel of the patch embedding."""
    patch_stride: tuple[int, ...] = (2, 4, 4)
    """Stride of the patch embedding: frames and pixels of a token."""
    patch_padding: tuple[int, ...] = (1, 3, 3)
    """Zero padding of the patch embedding."""
    mlp_ratio: float = 4.0
    """Hidden channels of an MLP, as a multiple of the block's."""
    sep_pos_embed: bool = True
    """Learn separate position embeddings for space and time, which are added; else one joint
    table."""
    drop_path_rate: float = 0.0
    """Stochastic depth rate of the last block; it grows linearly from 0 at the first."""
    head_dropout: float = 0.0
    """Dropout before the classifier."""
    init: Literal["trunc_normal", "xavier"] = "trunc_normal"
    """Initial weights: truncated normal of std 0.02 with bias 0.02 (the authors' classifiers), or
    Xavier with bias 0 (their autoencoders)."""
    head_init_scale: float = 0.001
    """Factor on the classifier's initial weight and bias."""

    def __post_init__(self) -> None:
        for name in _TUPLES:  # JSON gives lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        dims = len(self.input_size)
        require(
            dims in AXES,
            f"input_size={list(self.input_size)}: give (frames, height, width) or (height, width)",
        )
        for name in ("q_stride", "mask_unit_size", "patch_kernel", "patch_stride", "patch_padding"):
            value = getattr(self, name)
            require(
                len(value) == dims,
                f"{name}={list(value)}: must have {dims} numbers, as input_size has",
            )
        for name in ("in_chans", "embed_dim", "num_heads"):
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)}: must be 1 or more")
        require(
            self.num_classes >= 0,
            f"num_classes={self.num_classes}: must be 0 (features instead of logits) or more",
        )
        require(
            bool(self.stages) and min(self.stages) >= 1,
            f"stages={list(self.stages)}: every stage needs at least 1 block",
        )
        require(
            len(self.mask_unit_attn) >= len(self.stages),
            f"mask_unit_attn={list(self.mask_unit_attn)}: needs one entry for each of the "
            f"{len(self.stages)} stages",
        )
        require(
            0 <= self.q_pool < len(self.stages),
            f"q_pool={self.q_pool}: must be between 0 and {len(self.stages) - 1}, the transitions "
            f"between {len(self.stages)} stages",
        )
        require(
            all(
                unit % stride**self.q_pool == 0
                for unit, stride in zip(self.mask_unit_size, self.q_stride)
            ),
            f"mask_unit_size={list(self.mask_unit_size)}: must be a multiple of q_stride ** q_pool "
            f"= {[stride**self.q_pool for stride in self.q_stride]}",
        )
        require(
            self.embed_dim % self.num_heads == 0,
            f"embed_dim={self.embed_dim}: not a multiple of num_heads={self.num_heads}",
        )
        require(
            0 <= self.drop_path_rate < 1, f"drop_path_rate={self.drop_path_rate}: must be in [0, 1)"
        )
        require(0 <= self.head_dropout < 1, f"head_dropout={self.head_dropout}: must be in [0, 1)")
        check_input_size(self.input_size, self.unit_pixels)

    @property
    def unit_pixels(self) -> tuple[int, ...]:
        """Frames and pixels of one mask unit; the input size must be a multiple of it."""
        return tuple(stride * unit for stride, unit in zip(self.patch_stride, self.mask_unit_size))

    @property
    def token_grid(self) -> tuple[int, ...]:
        """Tokens of stage 1 along each axis."""
        return tuple(size // stride for size, stride in zip(self.input_size, self.patch_stride))

    @property
    def unit_grid(self) -> tuple[int, ...]:
        """Mask units along each axis."""
        return tuple(tokens // unit for tokens, unit in zip(self.token_grid, self.mask_unit_size))

    @property
    def num_units(self) -> int:
        """Mask units of one clip."""
        return math.prod(self.unit_grid)

    @property
    def unit_rest(self) -> tuple[int, ...]:
        """Tokens of a mask unit along each axis after all poolings."""
        return tuple(
            unit // stride**self.q_pool for unit, stride in zip(self.mask_unit_size, self.q_stride)
        )

    @property
    def final_grid(self) -> tuple[int, ...]:
        """Tokens of the last stage along each axis."""
        return tuple(units * rest for units, rest in zip(self.unit_grid, self.unit_rest))

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return sum(self.stages)


_TUPLES = (
    "input_size",
    "stages",
    "q_stride",
    "mask_unit_size",
    "mask_unit_attn",
    "patch_kernel",
    "patch_stride",
    "patch_padding",
)


def check_input_size(
    size: tuple[int, ...], multiple: tuple[int, ...], key: str = "input_size"
) -> None:
    """Raise `InputSizeError`, with the nearest valid sizes, unless every axis is a multiple.

    `key` names the setting in the message.
    """
    wrong = [
        axis
        for axis, (length, step) in enumerate(zip(size, multiple))
        if length < 1 or length % step
    ]
    if wrong:
        below, above = nearest_sizes(size, multiple)
        rules = ", ".join(
            f"{AXES[len(size)][axis]} {size[axis]} is not a multiple of {multiple[axis]}"
            for axis in wrong
        )
        nearest = f"{list(below)} or {list(above)}" if below != above else f"{list(above)}"
        raise InputSizeError(
            f"{key}={list(size)}: {rules} (patch stride x mask unit); the nearest that fit are "
            f"{nearest}"
        )


def nearest_sizes(
    size: tuple[int, ...], multiple: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return `size` rounded down and rounded up to multiples, at least one of them on each axis."""
    below = tuple(max(length // step, 1) * step for length, step in zip(size, multiple))
    above = tuple(max(-(-length // step), 1) * step for length, step in zip(size, multiple))
    return below, above


@dataclass(frozen=True, kw_only=True)
class StageLayout:
    """One stage of the network.

    The first block of a stage doubles the channels and may pool. It still attends as the stage
    before it did, so global attention starts on the pooled, smaller map.
    """

    first_block: int
    """Index of the first block in the network."""
    last_block: int
    """Index of the last block, whose output is the stage's map."""
    dim: int
    """Channels."""
    heads: int
    """Attention heads."""
    grid: tuple[int, ...]
    """Tokens of the map along each axis."""
    unit_shape: tuple[int, ...]
    """Tokens of one mask unit along each axis."""
    pools: bool
    """True if the first block pools the queries."""
    poolings: int
    """Number of poolings up to and including this stage."""
    attention: AttentionKind
    """Attention of every block but the first."""
    first_attention: AttentionKind
    """Attention of the first block: that of the stage before."""


@dataclass(frozen=True, kw_only=True)
class BlockLayout:
    """One block of the network."""

    dim_in: int
    """Input channels."""
    dim_out: int
    """Output channels."""
    heads: int
    """Attention heads."""
    attention: AttentionKind
    """Attention within mask units, or over the clip."""
    unit_tokens_in: int
    """Input tokens of a mask unit."""
    unit_tokens_out: int
    """Output tokens of a mask unit; fewer if the block pools."""
    drop_path: float
    """Probability of dropping a branch of this block for a sample in training."""


def stage_table(config: HieraConfig) -> tuple[StageLayout, ...]:
    """Return the layout of each stage, first to last."""
    stages = []
    first, previous_kind = 0, _attention_kind(config.mask_unit_attn[0])
    for index, blocks in enumerate(config.stages):
        poolings = min(index, config.q_pool)
        kind = _attention_kind(config.mask_unit_attn[index])
        stage = StageLayout(
            first_block=first,
            last_block=first + blocks - 1,
            dim=config.embed_dim * 2**index,
            heads=config.num_heads * 2**index,
            grid=tuple(n // s**poolings for n, s in zip(config.token_grid, config.q_stride)),
            unit_shape=tuple(
                n // s**poolings for n, s in zip(config.mask_unit_size, config.q_stride)
            ),
            pools=1 <= index <= config.q_pool,
            poolings=poolings,
            attention=kind,
            first_attention=previous_kind,
        )
        stages.append(stage)
        first, previous_kind = first + blocks, kind
    return tuple(stages)


def block_table(config: HieraConfig) -> tuple[BlockLayout, ...]:
    """Return the layout of each block, first to last."""
    blocks: list[BlockLayout] = []
    previous: StageLayout | None = None
    for stage in stage_table(config):
        tokens = math.prod(stage.unit_shape)
        for index in range(stage.first_block, stage.last_block + 1):
            source = stage if previous is None or index > stage.first_block else previous
            block = BlockLayout(
                dim_in=source.dim,
                dim_out=stage.dim,
                heads=stage.heads,
                attention=stage.first_attention if index == stage.first_block else stage.attention,
                unit_tokens_in=math.prod(source.unit_shape),
                unit_tokens_out=tokens,
                drop_path=config.drop_path_rate * index / max(config.depth - 1, 1),
            )
            blocks.append(block)
        previous = stage
    return tuple(blocks)


def _attention_kind(within_unit: bool) -> AttentionKind:
    return "unit" if within_unit else "global"
