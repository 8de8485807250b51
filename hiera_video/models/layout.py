"""The shape of a Hiera as data: its configuration and the stage and block tables that follow from it. No torch."""

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
    """All that fixes an encoder's parameters. Sizes are (frames, height, width), or (height, width) for images."""

    input_size: tuple[int, ...] = (16, 224, 224)
    """Frames and pixels of one clip."""
    in_chans: int = 3
    """Channels of the input."""
    num_classes: int = 400
    """Outputs of the head; 0: no head, the model answers with pooled features (a masked autoencoder has no head ever)."""
    embed_dim: int = 96
    """Width of stage 1; it doubles at each stage."""
    num_heads: int = 1
    """Attention heads of stage 1; they double at each stage."""
    stages: tuple[int, ...] = (2, 3, 16, 3)
    """Blocks per stage."""
    q_pool: int = 3
    """How many stage changes pool the queries, counted from the first."""
    q_stride: tuple[int, ...] = (1, 2, 2)
    """What a pooling divides the token grid by."""
    mask_unit_size: tuple[int, ...] = (1, 8, 8)
    """Tokens of stage 1 that are hidden, and attended, together."""
    mask_unit_attn: tuple[bool, ...] = (True, True, False, False)
    """Per stage: attention within mask units (True) or over the whole clip (False); see `StageLayout` for the lag."""
    patch_kernel: tuple[int, ...] = (3, 7, 7)
    """Kernel of the patch embedding."""
    patch_stride: tuple[int, ...] = (2, 4, 4)
    """Its stride: frames and pixels of one token."""
    patch_padding: tuple[int, ...] = (1, 3, 3)
    """Its zero padding."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLPs over the block's width."""
    sep_pos_embed: bool = True
    """Learn the position embedding as space plus time, instead of one table of every token."""
    drop_path_rate: float = 0.0
    """Stochastic depth of the last block; it grows linearly from 0 at the first."""
    head_dropout: float = 0.0
    """Dropout before the classifier."""
    init: Literal["trunc_normal", "xavier"] = "trunc_normal"
    """Initial weights: truncated normal 0.02 with bias 0.02 (the classifier's), or Xavier, bias 0 (the autoencoder's)."""
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
                f"{name}={list(value)}: has to have {dims} numbers, as input_size has",
            )
        for name in ("in_chans", "embed_dim", "num_heads"):
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)}: must be 1 or more")
        require(
            self.num_classes >= 0,
            f"num_classes={self.num_classes}: must be 0 (features instead of logits) or more",
        )
        require(
            bool(self.stages) and min(self.stages) >= 1,
            f"stages={list(self.stages)}: every stage needs 1 block or more",
        )
        require(
            len(self.mask_unit_attn) >= len(self.stages),
            f"mask_unit_attn={list(self.mask_unit_attn)}: needs one entry for each of the {len(self.stages)} stages",
        )
        require(
            0 <= self.q_pool < len(self.stages),
            f"q_pool={self.q_pool}: {len(self.stages)} stages have {len(self.stages) - 1} changes, so 0 to that many",
        )
        require(
            all(
                unit % stride**self.q_pool == 0
                for unit, stride in zip(self.mask_unit_size, self.q_stride)
            ),
            f"mask_unit_size={list(self.mask_unit_size)}: must be a multiple of q_stride ** q_pool = "
            f"{[stride**self.q_pool for stride in self.q_stride]}",
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
        """Frames and pixels of one mask unit; the input has to be a multiple."""
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
        """Tokens that a mask unit has left along each axis after every pooling."""
        return tuple(
            unit // stride**self.q_pool for unit, stride in zip(self.mask_unit_size, self.q_stride)
        )

    @property
    def final_grid(self) -> tuple[int, ...]:
        """Tokens of the last stage along each axis."""
        return tuple(units * rest for units, rest in zip(self.unit_grid, self.unit_rest))

    @property
    def depth(self) -> int:
        """Blocks in all."""
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
    """Raise `InputSizeError`, with the nearest sizes that fit, unless every axis is a multiple."""
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
            f"{key}={list(size)}: {rules} (patch stride x mask unit); the nearest that fit are {nearest}"
        )


def nearest_sizes(
    size: tuple[int, ...], multiple: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The size rounded down, and rounded up, to multiples (at least one of them on each axis)."""
    below = tuple(max(length // step, 1) * step for length, step in zip(size, multiple))
    above = tuple(max(-(-length // step), 1) * step for length, step in zip(size, multiple))
    return below, above


@dataclass(frozen=True, kw_only=True)
class StageLayout:
    """One stage. Its first block widens, and may pool; that block *lags*: it attends as the stage before did, so that
    global attention starts only on the pooled, smaller map."""

    first_block: int
    """Index of its first block in the whole network."""
    last_block: int
    """Index of its last block; its output is the stage's map."""
    dim: int
    """Channels."""
    heads: int
    """Attention heads."""
    grid: tuple[int, ...]
    """Tokens of the map along each axis."""
    unit_shape: tuple[int, ...]
    """Tokens of one mask unit along each axis."""
    pools: bool
    """Whether its first block pools the queries."""
    poolings: int
    """Poolings done up to and with this stage."""
    attention: AttentionKind
    """What its blocks attend to, but for the first."""
    first_attention: AttentionKind
    """What its first block attends to: the stage before's choice (the lag of one block)."""


@dataclass(frozen=True, kw_only=True)
class BlockLayout:
    """One block, as the stage table implies it."""

    dim_in: int
    """Channels that come in."""
    dim_out: int
    """Channels that go out."""
    heads: int
    """Attention heads."""
    attention: AttentionKind
    """Within mask units, or global."""
    unit_tokens_in: int
    """Tokens of a mask unit that come in."""
    unit_tokens_out: int
    """Tokens of a mask unit that go out; fewer where the block pools."""
    drop_path: float
    """Probability that a sample skips a branch of this block in training."""


def stage_table(config: HieraConfig) -> tuple[StageLayout, ...]:
    """The stages, first to last."""
    stages = []
    first, kind_before = 0, _kind(config.mask_unit_attn[0])
    for index, blocks in enumerate(config.stages):
        poolings = min(index, config.q_pool)
        kind = _kind(config.mask_unit_attn[index])
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
            first_attention=kind_before,
        )
        stages.append(stage)
        first, kind_before = first + blocks, kind
    return tuple(stages)


def block_table(config: HieraConfig) -> tuple[BlockLayout, ...]:
    """The blocks, first to last."""
    blocks: list[BlockLayout] = []
    before: StageLayout | None = None
    for stage in stage_table(config):
        tokens = math.prod(stage.unit_shape)
        for index in range(stage.first_block, stage.last_block + 1):
            entering = stage if before is None or index > stage.first_block else before
            block = BlockLayout(
                dim_in=entering.dim,
                dim_out=stage.dim,
                heads=stage.heads,
                attention=stage.first_attention if index == stage.first_block else stage.attention,
                unit_tokens_in=math.prod(entering.unit_shape),
                unit_tokens_out=tokens,
                drop_path=config.drop_path_rate * index / max(config.depth - 1, 1),
            )
            blocks.append(block)
        before = stage
    return tuple(blocks)


def _kind(within_unit: bool) -> AttentionKind:
    return "unit" if within_unit else "global"
