"""Tokens in unit order: from clips to tokens grouped by mask unit, and back to spatial order.

A clip's tokens are stored unit after unit. Within a unit they are ordered so that each query
pooling is a maximum over neighbouring blocks of memory. For a unit of 4x4 tokens that two poolings
of 2x2 reduce to one:

    a b | e f      the first pooling joins  a b c d   order: a e i m | b f j n | c g k o | d h l p
    c d | g h      (then e f g h, …),                 so pooling is .view(4, 4, C).amax(0)
    ----+----      the second one joins
    i j | m n      the four that remain
    k l | o p
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hiera_video.errors import InputSizeError
from hiera_video.models.layout import HieraConfig

CONVS: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}


class UnitOrder:
    """Conversion between spatial order and unit order for one configuration.

    `level` is the number of poolings already applied: 0 for the tokens of stage 1. In the einops
    patterns, `u` is the grid of units, `r` what remains of a unit after every pooling, `p1`, `p2`,
    … the strides of the poolings; each is followed by its axis, t, h or w.
    """

    def __init__(self, config: HieraConfig) -> None:
        self.axes = "thw"[-len(config.input_size) :]
        self.poolings = config.q_pool
        self.sizes = {f"u{axis}": units for axis, units in zip(self.axes, config.unit_grid)}
        self.sizes |= {f"r{axis}": rest for axis, rest in zip(self.axes, config.unit_rest)}
        for pooling in range(1, config.q_pool + 1):
            self.sizes |= {
                f"p{pooling}{axis}": stride for axis, stride in zip(self.axes, config.q_stride)
            }

    def unroll(self, grid: Tensor, level: int = 0) -> Tensor:
        """Reorder [B, C, (t,) h, w] in spatial order to [B, units, tokens, C] in unit order.

        For the micro size at level 0, `b c (ut rt p2t p1t) (uh rh p2h p1h) (uw rw p2w p1w)
        -> b (ut uh uw) (p1t p1h p1w p2t p2h p2w rt rh rw) c`.
        """
        pattern = f"b c {self._grid(level)} -> b ({self._units()}) ({self._tokens(level)}) c"
        return rearrange(grid, pattern, **self._sizes_in(pattern))

    def unroll_units(self, grids: Tensor) -> Tensor:
        """Reorder grids of single units, [N, C, (t,) h, w], to [N, tokens, C] in unit order."""
        pattern = f"n c {self._unit_grid(0)} -> n ({self._tokens(0)}) c"
        return rearrange(grids, pattern, **self._sizes_in(pattern))

    def reroll(self, tokens: Tensor, level: int) -> Tensor:
        """Reorder [B, units, tokens, C] to [B, (t,) h, w, C] in spatial order, undoing `unroll`."""
        pattern = f"b ({self._units()}) ({self._tokens(level)}) c -> b {self._grid(level)} c"
        return rearrange(tokens, pattern, **self._sizes_in(pattern))

    def reroll_units(self, tokens: Tensor, level: int) -> Tensor:
        """Reorder [B, visible units, tokens, C] to [B, visible units, (t,) h, w, C]."""
        pattern = f"b u ({self._tokens(level)}) c -> b u {self._unit_grid(level)} c"
        return rearrange(tokens, pattern, **self._sizes_in(pattern))

    def _units(self) -> str:
        return " ".join(f"u{axis}" for axis in self.axes)

    def _grid(self, level: int) -> str:
        return " ".join(f"(u{axis} {self._within_unit(axis, level)})" for axis in self.axes)

    def _unit_grid(self, level: int) -> str:
        return " ".join(f"({self._within_unit(axis, level)})" for axis in self.axes)

    def _within_unit(self, axis: str, level: int) -> str:
        strides = [f"p{pooling}{axis}" for pooling in range(self.poolings, level, -1)]
        return " ".join([f"r{axis}", *strides])

    def _tokens(self, level: int) -> str:
        strides = [
            f"p{pooling}{axis}"
            for pooling in range(level + 1, self.poolings + 1)
            for axis in self.axes
        ]
        return " ".join(strides + [f"r{axis}" for axis in self.axes])

    def _sizes_in(self, pattern: str) -> dict[str, int]:
        names = set(pattern.replace("(", " ").replace(")", " ").split())
        return {name: size for name, size in self.sizes.items() if name in names}


class PatchEmbed(nn.Module):
    """Overlapping convolution from pixels to tokens, which stay a grid [B, C, (t,) h, w]."""

    def __init__(self, config: HieraConfig) -> None:
        super().__init__()
        self.unit_shape = config.mask_unit_size
        self.kernel = config.patch_kernel
        self.stride = config.patch_stride
        self.padding = config.patch_padding
        self.proj = CONVS[len(config.input_size)](
            config.in_chans,
            config.embed_dim,
            kernel_size=config.patch_kernel,  # type: ignore[arg-type]  # as long as the class needs
            stride=config.patch_stride,  # type: ignore[arg-type]
            padding=config.patch_padding,  # type: ignore[arg-type]
        )

    def forward(self, clips: Tensor) -> Tensor:
        grid: Tensor = self.proj(clips)
        return grid

    def embed_units(self, clips: Tensor, chosen: Tensor) -> Tensor:
        """Embed chosen units alone, each from its pixels and the margin that its patches overlap.

        Args:
            clips: [B, C, (T,) H, W].
            chosen: [B, K], indices of units.

        Returns:
            [B * K, C, (t,) h, w], the token grid of each chosen unit.
        """
        axes = len(self.unit_shape)
        margins = [
            side
            for kernel, stride, before in zip(self.kernel, self.stride, self.padding)
            for side in (kernel - stride - before, before)
        ]
        windows = F.pad(clips, margins[::-1])  # pad takes the last axis first, before then after
        for axis, (tokens, kernel, stride) in enumerate(
            zip(self.unit_shape, self.kernel, self.stride), start=2
        ):
            windows = windows.unfold(axis, (tokens - 1) * stride + kernel, tokens * stride)
        # b c (t) h w (pt) ph pw -> b (t) h w c (pt) ph pw: units, then a window's pixels; a view
        windows = windows.movedim(1, 1 + axes)
        samples = torch.arange(len(clips), device=clips.device).unsqueeze(1)
        places: list[Tensor] = []  # torch.unravel_index would synchronise with a GPU
        for count in reversed(windows.shape[1 : 1 + axes]):
            places.insert(0, chosen % count)
            chosen = chosen // count
        chosen_windows = windows[samples, *places].flatten(0, 1)
        convolve = F.conv2d if axes == 2 else F.conv3d
        return convolve(chosen_windows, self.proj.weight, self.proj.bias, self.stride)


def hide_pixels(clips: Tensor, keep: Tensor, unit_grid: tuple[int, ...]) -> Tensor:
    """Zero the pixels of hidden units, so that no visible unit's overlapping patches read them.

    Args:
        clips: [B, C, (T,) H, W].
        keep: [B, units] bool, True = visible.
        unit_grid: Mask units along each axis.
    """
    axes = "thw"[-len(unit_grid) :]
    joined = " ".join(f"(u{axis} n{axis})" for axis in axes)
    split = " ".join(f"u{axis} n{axis}" for axis in axes)
    sizes = {f"u{axis}": units for axis, units in zip(axes, unit_grid)}
    blocks = rearrange(clips, f"b c {joined} -> b c {split}", **sizes)
    shape = [clips.shape[0], 1, *(size for units in unit_grid for size in (units, 1))]
    # masked_fill rather than a product: a NaN in a hidden unit would survive a product
    return blocks.masked_fill(~keep.view(shape), 0.0).reshape(clips.shape)


def count_visible(keep: Tensor, batch: int, units: int, expected: int | None) -> int:
    """Return how many units of each clip `keep` shows, after checking its shape, dtype and counts.

    The counts depend on data, which must not be read while a graph is compiled or captured. There,
    `expected` is returned and checked on the device instead.

    Args:
        keep: [batch, units] bool, True = visible.
        batch: Number of clips.
        units: Mask units of a clip.
        expected: Count for graphs that cannot read data.

    Raises:
        InputSizeError: If the shape or dtype is wrong, clips show different counts, or none.
    """
    if keep.shape != (batch, units) or keep.dtype != torch.bool:
        raise InputSizeError(
            f"keep is {keep.dtype} {list(keep.shape)}; expected torch.bool [{batch}, {units}] "
            "(clips x mask units), True = visible"
        )
    if expected is not None and _is_capturing_graph(keep):
        torch._assert_async(
            (keep.sum(1) == expected).all(),
            "keep shows another number of units than mask_ratio implies",
        )
        return expected
    if keep.is_meta:
        return expected or units
    counts = sorted(set(keep.sum(1).tolist()))
    if len(counts) > 1:
        raise InputSizeError(
            f"keep shows between {counts[0]} and {counts[-1]} units a clip; every clip must show "
            "the same number"
        )
    if counts[0] == 0:
        raise InputSizeError("keep shows no unit; at least one must be visible")
    return int(counts[0])


def _is_capturing_graph(tensor: Tensor) -> bool:
    return torch.compiler.is_compiling() or (
        tensor.is_cuda and torch.cuda.is_current_stream_capturing()
    )


def indices_of_true(flags: Tensor, count: int) -> Tensor:
    """Return the ascending positions [B, count] of the `count` True values in each row of [B, N].

    Unlike `nonzero`, the shape does not depend on the data.
    """
    return torch.argsort((~flags).to(torch.uint8), dim=1, stable=True)[:, :count]


def gather_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Return the rows [B, K, …] of [B, N, …] at positions [B, K], which must not repeat.

    Each row is used at most once, so the gradient is a plain scatter: deterministic on every
    device.
    """
    batch, length = rows.shape[:2]
    gathered = rows.flatten(0, 1).index_select(0, flat_index(index, length))
    return gathered.view(batch, index.shape[1], *rows.shape[2:])


def flat_index(index: Tensor, length: int) -> Tensor:
    """Convert positions [B, K] within samples of `length` rows to positions [B * K] in all rows."""
    offset = torch.arange(index.shape[0], device=index.device).unsqueeze(1) * length
    return (index + offset).flatten()


def pool_units(tokens: Tensor, unit_tokens_out: int, stride: int) -> Tensor:
    """Max-pool [B, N, …] in unit order to [B, N / stride, …], unit by unit.

    A view of `reduce(tokens, "b (units stride out) … -> b (units out) …", "max")`; see `UnitOrder`.
    """
    batch, _, *rest = tokens.shape
    return tokens.view(batch, -1, stride, unit_tokens_out, *rest).amax(2).flatten(1, 2)
