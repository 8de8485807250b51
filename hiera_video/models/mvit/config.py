"""Switches of the ladder from MViTv2 to Hiera, its rungs and model names. Needs no torch.

A rung is the rung above with the changes of `RUNGS` (arXiv 2306.00989, section 3.2, table 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from hiera_video.models.layout import BlockLayout, HieraConfig, block_table, stage_table
from hiera_video.utils.checks import require


@dataclass(frozen=True, kw_only=True)
class LadderConfig(HieraConfig):
    """Configuration of a rung: Hiera's, and a switch for each component that the paper removes.

    The defaults are rung f, which computes what Hiera computes.
    """

    relative_positions: bool = False
    """Add decomposed relative position embeddings to the attention of every block, instead of
    absolute ones to the tokens."""
    class_token: bool = False
    """Classify a class token instead of the mean over tokens (MViTv2's video classifiers)."""
    pool: Literal["conv", "max"] = "max"
    """Pool queries, keys and values by a depthwise convolution that heads share and a LayerNorm,
    or by a maximum."""
    stride_one_pools: bool = False
    """Pool queries, keys and values in every block, also where the stride is 1."""
    overlap: bool = False
    """Pool with kernels of 3, which overlap; else the kernel equals the stride."""
    separate_units: bool = False
    """Separate and pad: kernels that overlap see zeros around a mask unit, not its neighbours."""
    query_residual: bool = False
    """Add the pooled queries to the output of attention."""
    kv_stride: tuple[int, ...] = ()
    """Stride of the pooling of keys and values in stage 1, divided by `q_stride` with each query
    pooling. Empty: no such pooling; attention is within mask units where `mask_unit_attn` says."""
    window: bool = False
    """Attend within windows of `mask_unit_size` tokens in every stage, instead of within mask
    units, which shrink: the alternative in figure 2 of the paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "kv_stride", tuple(self.kv_stride))
        require(self.pool in ("conv", "max"), f"pool={self.pool!r}: choose conv or max")
        for name, wrong in (
            ("pool='conv'", self.pool == "conv" and not self.overlap),
            ("relative_positions", self.relative_positions and not self.overlap),
            ("relative_positions", self.relative_positions and not self.stride_one_pools),
        ):
            switch = "stride_one_pools" if self.overlap else "overlap"
            require(not wrong, f"{name}: needs {switch}=True, as in every MViTv2")
        pooled = bool(self.kv_stride)
        for name in ("relative_positions", "class_token", "stride_one_pools"):
            require(
                pooled or not getattr(self, name),
                f"{name}: needs kv_stride; within mask units there is none",
            )
        require(
            not (pooled and any(self.mask_unit_attn[: len(self.stages)])),
            f"kv_stride={list(self.kv_stride)}: pooled keys are attended over the clip; set every "
            "mask_unit_attn to False",
        )
        if pooled:
            self._check_kv_stride()

    def _check_kv_stride(self) -> None:
        """Raise `ConfigError` unless the strides divide mask units as query pooling does."""
        require(
            len(self.kv_stride) == len(self.input_size),
            f"kv_stride={list(self.kv_stride)}: must have {len(self.input_size)} numbers, as "
            "input_size has",
        )
        for layout in ladder_table(self):
            require(
                self.overlap or _joins_neighbours(self, layout),
                f"kv_stride={list(self.kv_stride)}: must be a power of q_stride="
                f"{list(self.q_stride)}, or the mask unit, {list(self.mask_unit_size)}",
            )
            require(
                all(unit % stride == 0 for unit, stride in zip(layout.unit_in, layout.kv_stride)),
                f"kv_stride={list(self.kv_stride)}: must divide mask_unit_size="
                f"{list(self.mask_unit_size)}",
            )


@dataclass(frozen=True, kw_only=True)
class LadderBlockLayout(BlockLayout):
    """One block of a rung."""

    level_in: int
    """Query poolings before the block."""
    level_out: int
    """Query poolings after the block."""
    unit_in: tuple[int, ...]
    """Input tokens of a mask unit along each axis."""
    q_stride: tuple[int, ...]
    """Stride of the pooling of queries; ones where they are not reduced."""
    kv_stride: tuple[int, ...]
    """Stride of the pooling of keys and values; ones where they are not reduced."""


def ladder_table(config: LadderConfig) -> tuple[LadderBlockLayout, ...]:
    """Return the layout of each block, first to last.

    The first block of a stage already has the stage's stride of keys and values (PySlowFast's
    `POOL_KV_STRIDE_ADAPTIVE`).
    """
    blocks, rows, level_in = block_table(config), list[LadderBlockLayout](), 0
    ones = (1,) * len(config.input_size)
    for stage in stage_table(config):
        for index in range(stage.first_block, stage.last_block + 1):
            pools = stage.poolings > level_in
            row = LadderBlockLayout(
                **vars(blocks[index]),
                level_in=level_in,
                level_out=stage.poolings,
                unit_in=tuple(
                    n // s**level_in for n, s in zip(config.mask_unit_size, config.q_stride)
                ),
                q_stride=config.q_stride if pools else ones,
                kv_stride=tuple(
                    max(kv // s**stage.poolings, 1)
                    for kv, s in zip(config.kv_stride or ones, config.q_stride)
                ),
            )
            rows.append(row)
            level_in = stage.poolings
    return tuple(rows)


def _joins_neighbours(config: LadderConfig, layout: LadderBlockLayout) -> bool:
    """Return True if the pooled keys join tokens that are neighbours in unit order."""
    left = config.q_pool - layout.level_in
    powers = [tuple(s**k for s in config.q_stride) for k in range(left + 1)]
    return layout.kv_stride in (*powers, layout.unit_in)


RUNGS: dict[str, dict[str, Any]] = {
    "a": {"relative_positions": False},
    "b": {"pool": "max"},
    "c": {"stride_one_pools": False},
    "d": {"overlap": False, "separate_units": False},
    "e": {"query_residual": False},
    "f": {"kv_stride": (), "mask_unit_attn": None},  # None: as Hiera's
}
"""Rung → what it changes in the rung before; the first follows MViTv2 with `separate_units`."""
LADDER_SIZES = ("tiny", "small", "base", "large", "micro")
"""Sizes of Hiera whose skeleton (blocks, channels, heads) the rungs have."""


def mvitv2_config(hiera: HieraConfig, *, masked: bool) -> LadderConfig:
    """Return MViTv2 on the skeleton of a Hiera.

    Args:
        hiera: Configuration of a classifier or an autoencoder.
        masked: For masked training: no class token, and mask units are separated and padded, as in
            the rungs below; else the supervised model, whose kernels see the whole clip.
    """
    video = len(hiera.input_size) == 3
    # PySlowFast's POOL_KV_STRIDE_ADAPTIVE: [1, 8, 8] for Kinetics, a mask unit; [4, 4] for ImageNet
    kv_stride = hiera.mask_unit_size if video else tuple(s**2 for s in hiera.q_stride)
    return LadderConfig(
        **{**vars(hiera), "mask_unit_attn": (False,) * len(hiera.stages)},
        relative_positions=True,
        class_token=video and not masked,
        pool="conv",
        stride_one_pools=True,
        overlap=True,
        separate_units=masked,
        query_residual=True,
        kv_stride=kv_stride,
    )


def rung_config(hiera: HieraConfig, rung: str) -> LadderConfig:
    """Return a rung, "a" to "f", on the skeleton of a Hiera."""
    config = mvitv2_config(hiera, masked=True)
    for name, changes in RUNGS.items():
        changed = {**changes}
        if "mask_unit_attn" in changes:
            changed["mask_unit_attn"] = hiera.mask_unit_attn
        config = replace(config, **changed)
        if name == rung:
            break
    return config


def ladder_configs(hieras: Mapping[str, HieraConfig]) -> dict[str, LadderConfig]:
    """Return the configurations of the ladder by model name.

    `mvitv2_…`, `ladder_a_…` to `ladder_f_…`, `ladder_window_…` (rung f with a fixed window), and
    `mae_…` of each but the last.

    Args:
        hieras: Configurations of Hiera by model name, autoencoders included.
    """
    found: dict[str, LadderConfig] = {}
    for mae in ("", "mae_"):
        skeletons = {
            name.removeprefix("mae_hiera_").removeprefix("hiera_"): config
            for name, config in hieras.items()
            if name.startswith(f"{mae}hiera_")
        }
        skeletons = {
            size: config
            for size, config in skeletons.items()
            if size.rpartition("_")[0] in LADDER_SIZES
        }
        for size, hiera in skeletons.items():
            found[f"{mae}mvitv2_{size}"] = mvitv2_config(hiera, masked=bool(mae))
            for rung in RUNGS:
                found[f"{mae}ladder_{rung}_{size}"] = rung_config(hiera, rung)
            if not mae and hiera.mask_unit_attn[1]:  # else its windows are units everywhere
                found[f"ladder_window_{size}"] = replace(rung_config(hiera, "f"), window=True)
    return found
