"""Tokens in unit order: how clips become tokens grouped by mask unit, and how maps come back to spatial order.

Within a clip, tokens stand unit after unit; within a unit, so that each query pooling is a maximum over neighbouring
blocks of memory. For a unit of 4x4 tokens that two poolings of 2x2 reduce to one:

    a b | e f        first pooling joins  a b c d       order: a e i m | b f j n | c g k o | d h l p
    c d | g h        (then e f g h, …),                 so that pooling is .view(4, 4, C).amax(0)
    ----+----        the second one joins
    i j | m n        what is left of these four
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
    """The two orders of one configuration's tokens. `level` counts the poolings done: 0 for stage 1's tokens."""

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
        """[B, C, (t,) h, w] in spatial order to [B, units, tokens, C] in unit order. For the micro size at level 0:
        `b c (ut rt p2t p1t) (uh rh p2h p1h) (uw rw p2w p1w) -> b (ut uh uw) (p1t p1h p1w p2t p2h p2w rt rh rw) c`."""
        spatial = " ".join(self._spatial(axis, level, units=True) for axis in self.axes)
        units = " ".join(f"u{axis}" for axis in self.axes)
        pattern = f"b c {spatial} -> b ({units}) ({self._tokens(level)}) c"
        return rearrange(grid, pattern, **self._named(pattern))

    def unroll_units(self, grids: Tensor) -> Tensor:
        """Units' own grids [N, C, (t,) h, w] in spatial order to [N, tokens, C] in unit order."""
        spatial = " ".join(self._spatial(axis, 0, units=False) for axis in self.axes)
        pattern = f"n c {spatial} -> n ({self._tokens(0)}) c"
        return rearrange(grids, pattern, **self._named(pattern))

    def reroll(self, tokens: Tensor, level: int) -> Tensor:
        """[B, units, tokens, C] in unit order to [B, (t,) h, w, C] in spatial order: what `unroll` undoes."""
        spatial = " ".join(self._spatial(axis, level, units=True) for axis in self.axes)
        units = " ".join(f"u{axis}" for axis in self.axes)
        pattern = f"b ({units}) ({self._tokens(level)}) c -> b {spatial} c"
        return rearrange(tokens, pattern, **self._named(pattern))

    def reroll_units(self, tokens: Tensor, level: int) -> Tensor:
        """[B, visible units, tokens, C] to [B, visible units, (t,) h, w, C]: spatial order inside each unit."""
        spatial = " ".join(self._spatial(axis, level, units=False) for axis in self.axes)
        pattern = f"b u ({self._tokens(level)}) c -> b u {spatial} c"
        return rearrange(tokens, pattern, **self._named(pattern))

    def _spatial(self, axis: str, level: int, *, units: bool) -> str:
        inside = [f"p{pooling}{axis}" for pooling in range(self.poolings, level, -1)]
        return f"({' '.join([f'u{axis}'] * units + [f'r{axis}', *inside])})"

    def _tokens(self, level: int) -> str:
        pools = [
            f"p{pooling}{axis}"
            for pooling in range(level + 1, self.poolings + 1)
            for axis in self.axes
        ]
        return " ".join(pools + [f"r{axis}" for axis in self.axes])

    def _named(self, pattern: str) -> dict[str, int]:
        words = set(pattern.replace("(", " ").replace(")", " ").split())
        return {name: size for name, size in self.sizes.items() if name in words}


class PatchEmbed(nn.Module):
    """The overlapping convolution that turns pixels into tokens, still as a grid [B, C, (t,) h, w]."""

    def __init__(self, config: HieraConfig) -> None:
        super().__init__()
        self.unit_shape = config.mask_unit_size
        self.kernel, self.stride, self.padding = (
            config.patch_kernel,
            config.patch_stride,
            config.patch_padding,
        )
        self.proj = CONVS[len(config.input_size)](
            config.in_chans,
            config.embed_dim,
            kernel_size=config.patch_kernel,  # type: ignore[arg-type]  # its length fits the class that was looked up
            stride=config.patch_stride,  # type: ignore[arg-type]
            padding=config.patch_padding,  # type: ignore[arg-type]
        )

    def forward(self, clips: Tensor) -> Tensor:
        grid: Tensor = self.proj(clips)
        return grid

    def units(self, clips: Tensor, chosen: Tensor) -> Tensor:
        """The grid's pieces of some units, [B * K, C, (t,) h, w] of a unit's tokens, from the pixels that they see: the
        unit's own and a margin of its neighbours'. chosen: [B, K], places of units."""
        axes = len(self.unit_shape)
        margins = [
            side
            for kernel, stride, before in zip(self.kernel, self.stride, self.padding)
            for side in (kernel - stride - before, before)
        ]
        windows = F.pad(clips, margins[::-1])  # from the last axis on, before and after
        for axis, (tokens, kernel, stride) in enumerate(
            zip(self.unit_shape, self.kernel, self.stride), start=2
        ):
            windows = windows.unfold(axis, (tokens - 1) * stride + kernel, tokens * stride)
        windows = windows.movedim(
            1, 1 + axes
        )  # b (t) h w of units, c, (t) h w of a window's pixels; still a view
        samples = torch.arange(len(clips), device=clips.device).unsqueeze(1)
        places: list[Tensor] = []  # not by torch.unravel_index, which asks a GPU to wait
        for count in reversed(windows.shape[1 : 1 + axes]):
            places.insert(0, chosen % count)
            chosen = chosen // count
        kept = windows[samples, *places].flatten(0, 1)
        convolve = F.conv2d if axes == 2 else F.conv3d
        return convolve(kept, self.proj.weight, self.proj.bias, self.stride)


def hide_pixels(clips: Tensor, keep: Tensor, unit_grid: tuple[int, ...]) -> Tensor:
    """Zero the pixels of hidden units, so that the overlapping patches of visible ones see nothing of them.

    clips [B, C, (T,) H, W], keep [B, units] bool, True = visible."""
    axes = "thw"[-len(unit_grid) :]
    units = " ".join(f"(u{axis} n{axis})" for axis in axes)
    blocks = rearrange(
        clips,
        f"b c {units} -> b c {_paired(axes)}",
        **{f"u{a}": n for a, n in zip(axes, unit_grid)},
    )
    shape = [clips.shape[0], 1, *(size for units in unit_grid for size in (units, 1))]
    # masked_fill rather than a product: a NaN in a hidden unit would survive a product
    return blocks.masked_fill(~keep.view(shape), 0.0).reshape(clips.shape)


def _paired(axes: str) -> str:
    return " ".join(f"u{axis} n{axis}" for axis in axes)


def visible_count(keep: Tensor, batch: int, units: int, expected: int | None) -> int:
    """How many units of each sample `keep` shows, after checking its shape, its type and that the counts are equal.

    The counts can be read only from data; while a graph is compiled or captured nobody may look, so there `expected`
    is the answer and the check becomes an assertion on the device."""
    if keep.shape != (batch, units) or keep.dtype != torch.bool:
        raise InputSizeError(
            f"keep is {keep.dtype} {list(keep.shape)}; it has to be torch.bool [{batch}, {units}], clips x mask units, "
            "True = visible"
        )
    if expected is not None and _graph_in_the_making(keep):
        torch._assert_async(
            (keep.sum(1) == expected).all(),
            "keep shows another number of units than mask_ratio says",
        )
        return expected
    if keep.is_meta:
        return expected or units
    counts = sorted(set(keep.sum(1).tolist()))
    if len(counts) > 1:
        raise InputSizeError(
            f"keep shows between {counts[0]} and {counts[-1]} units a clip; every clip has to show equally many"
        )
    if counts[0] == 0:
        raise InputSizeError("keep shows no unit; at least one has to be visible")
    return int(counts[0])


def _graph_in_the_making(tensor: Tensor) -> bool:
    return torch.compiler.is_compiling() or (
        tensor.is_cuda and torch.cuda.is_current_stream_capturing()
    )


def true_positions(flags: Tensor, count: int) -> Tensor:
    """[B, N] bool with `count` True each to their positions [B, count], ascending. The shape never depends on data."""
    return torch.argsort((~flags).to(torch.uint8), dim=1, stable=True)[:, :count]


def take_rows(rows: Tensor, index: Tensor) -> Tensor:
    """[B, N, …] and positions [B, K] to [B, K, …]. One gather of whole rows; each is used once, so that its gradient
    is a plain scatter, the same on every run."""
    batch, length = rows.shape[:2]
    taken = rows.flatten(0, 1).index_select(0, flat_index(index, length))
    return taken.view(batch, index.shape[1], *rows.shape[2:])


def flat_index(index: Tensor, length: int) -> Tensor:
    """Positions [B, K] within each of B samples of `length` rows to positions [B*K] among all rows."""
    offset = torch.arange(index.shape[0], device=index.device).unsqueeze(1) * length
    return (index + offset).flatten()


def pool_units(tokens: Tensor, unit_tokens_out: int, stride: int) -> Tensor:
    """Max-pool [B, N, …] to [B, N/stride, …], unit by unit:
    `b (units stride out) … -> b (units out) …` by maximum; a bare view, see `UnitOrder`."""
    batch, _, *rest = tokens.shape
    return tokens.view(batch, -1, stride, unit_tokens_out, *rest).amax(2).flatten(1, 2)
