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

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hiera_video.errors import InputSizeError
from hiera_video.models.layout import HieraConfig

PATCH_PRODUCT = True
"""On a GPU, embed patches by a matrix product over copied windows. cuDNN's 3D convolution of three
channels is slow in half precision, and missing in some versions (pytorch#166122, #174051)."""
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

    def unroll_units(self, grids: Tensor, level: int = 0) -> Tensor:
        """Reorder grids of single units, [N, C, (t,) h, w], to [N, tokens, C] in unit order."""
        pattern = f"n c {self._unit_grid(level)} -> n ({self._tokens(level)}) c"
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


def uses_product(clips: Tensor) -> bool:
    """Return True if the patches of `clips` are embedded by a matrix product."""
    return PATCH_PRODUCT and clips.is_cuda


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
        """Embed clips [B, C, (T,) H, W] as a grid of tokens [B, C, (t,) h, w]."""
        if uses_product(clips):
            return self.embed_patches(clips)
        grid: Tensor = self.proj(clips)
        return grid

    def embed_patches(self, clips: Tensor) -> Tensor:
        """Do the same by a matrix product."""
        kind = clips.device.type
        if torch.is_autocast_enabled(kind):  # before the copy, which is five times as large
            clips = clips.to(torch.get_autocast_dtype(kind))
        return self.embed_by_product(F.pad(clips, self._margins(self.product_kernel)))

    @property
    def product_kernel(self) -> tuple[int, ...]:
        """The kernel, wider by zeros so that a row of the matrix product is a multiple of 16 bytes.

        Matrix kernels load unaligned rows element by element.
        """
        *rest, width = self.kernel
        rows = self.proj.in_channels * math.prod(rest)
        return (*rest, next(w for w in range(width, width + 9) if rows * w % 8 == 0))

    def embed_by_product(self, padded: Tensor) -> Tensor:
        """Convolve without padding, as a matrix product over windows of `product_kernel`.

        Args:
            padded: [N, C, (T,) H, W], pixels and margins.

        Returns:
            [N, C, (t,) h, w], the grid of tokens.
        """
        axes, kernel = len(self.kernel), self.product_kernel
        windows = padded
        for axis in range(axes):
            windows = windows.unfold(2 + axis, kernel[axis], self.stride[axis])
        # n c (t) h w (kt) kh kw -> (n (t) h w) (c (kt) kh kw)
        windows = windows.movedim(1, 1 + axes)
        rows = windows.flatten(1 + axes).flatten(0, axes)
        weight = F.pad(self.proj.weight, (0, kernel[-1] - self.kernel[-1])).flatten(1)
        tokens = F.linear(rows, weight, self.proj.bias)
        return tokens.view(*windows.shape[: 1 + axes], -1).movedim(-1, 1)

    def embed_units(self, clips: Tensor, keep: Tensor, chosen: Tensor) -> Tensor:
        """Embed chosen units alone, each from its pixels and the margin that its patches overlap.

        Args:
            clips: [B, C, (T,) H, W].
            keep: [B, units] bool; pixels of units where it is False count as 0.
            chosen: [B, K], indices of units.

        Returns:
            [B * K, C, (t,) h, w], the token grid of each chosen unit.
        """
        kernel = self.product_kernel if uses_product(clips) else self.kernel
        windows = self._unit_windows(clips, keep, chosen, kernel).flatten(0, 1)
        if uses_product(clips):
            return self.embed_by_product(windows)
        convolve = F.conv2d if len(kernel) == 2 else F.conv3d
        return convolve(windows, self.proj.weight, self.proj.bias, self.stride)

    def _unit_windows(
        self, clips: Tensor, keep: Tensor, chosen: Tensor, kernel: tuple[int, ...]
    ) -> Tensor:
        """Return the pixels [B, K, C, (pt) ph, pw] that the patches of the chosen units cover.

        Pixels of hidden units and outside of the clip are 0.
        """
        device = clips.device
        # the flat index of each pixel of a window, and of the unit that it lies in, axis by axis
        pixels = units = torch.zeros((), dtype=torch.int64, device=device)
        inside = torch.ones((), dtype=torch.bool, device=device)
        axes = len(kernel)
        sizes, unit = clips.shape[2:], [s * n for s, n in zip(self.stride, self.unit_shape)]
        step = unit_step = 1
        for axis in reversed(range(axes)):
            count = sizes[axis] // unit[axis]
            length = (self.unit_shape[axis] - 1) * self.stride[axis] + kernel[axis]
            first = chosen % count * unit[axis] - self.padding[axis]
            chosen = chosen // count  # torch.unravel_index would synchronise with a GPU
            shape = [1, 1, *(length if other == axis else 1 for other in range(axes))]
            places = first.view(*first.shape, *[1] * axes) + torch.arange(
                length, device=device
            ).view(shape)
            inside = inside & (places >= 0) & (places < sizes[axis])
            places = places.clamp(0, sizes[axis] - 1)
            pixels = pixels + places * step
            units = units + places // unit[axis] * unit_step
            step, unit_step = step * sizes[axis], unit_step * count
        batch, count, *window = pixels.shape
        visible = keep.gather(1, units.reshape(batch, -1)).view(batch, count, 1, *window)
        visible = visible & inside.unsqueeze(2)
        samples = torch.arange(batch, device=device).view(-1, 1, 1, 1)
        channels = torch.arange(clips.shape[1], device=device).view(1, 1, -1, 1)
        found = clips.flatten(2)[samples, channels, pixels.view(batch, count, 1, -1)]
        # masked_fill rather than a product: a NaN in a hidden unit would survive a product
        return found.view(batch, count, -1, *window).masked_fill(~visible, 0.0)

    def _margins(self, kernel: tuple[int, ...]) -> list[int]:
        """Return the padding of a clip as `F.pad` takes it: last axis first, before then after."""
        margins = [
            side
            for size, stride, before in zip(kernel, self.stride, self.padding)
            for side in (size - stride - before, before)
        ]
        return margins[::-1]


def count_visible(
    keep: Tensor, batch: int, units: int, expected: int | None, *, trusted: bool = False
) -> int:
    """Return how many units of each clip `keep` shows, after checking its shape, dtype and counts.

    The counts depend on data, which must not be read while a graph is compiled or captured, and for
    which the host would wait for a GPU. There, `expected` is returned and checked on the device.

    Args:
        keep: [batch, units] bool, True = visible.
        batch: Number of clips.
        units: Mask units of a clip.
        expected: Count for graphs that cannot read data.
        trusted: The caller answers for `expected`, so that a GPU is not waited for.

    Raises:
        InputSizeError: If the shape or dtype is wrong, clips show different counts, or none.
    """
    if keep.shape != (batch, units) or keep.dtype != torch.bool:
        raise InputSizeError(
            f"keep is {keep.dtype} {list(keep.shape)}; expected torch.bool [{batch}, {units}] "
            "(clips x mask units), True = visible"
        )
    if expected is not None and (_is_capturing_graph(keep) or (trusted and keep.is_cuda)):
        torch._assert_async(
            (keep.sum(1) == expected).all(),
            f"keep shows another number of units than the {expected} that mask_ratio or visible "
            "implies; a compiled model cannot count them: pass visible=N",
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
