"""Frames scaled bilinearly and normalised: torch's `interpolate` to float rounding, in a third of its time.

Each row of a scaled picture is a weighted sum of two rows, and so is each column of two columns. `embedding_bag` sums rows
by weight in one pass through memory; so the picture is turned on its side for the columns, and back for the rows:

    uint8 [H, W, 3] ─turn─▶ [W, 3·H] ─two columns each─▶ [w, 3·H] ─turn─▶ [3·H, w] ─two rows each─▶ float32 [3, h, w]

One frame at a time, so that all of this stays in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

PADDING = 4
"""Unused numbers at the end of a row: rows a power of two apart share a place in the cache and drive each other out."""


class Scaling:
    """Frames of one size → the part `rows` × `columns` of their scaled and normalised pictures."""

    def __init__(
        self,
        source: tuple[int, int],
        target: tuple[int, int],
        *,
        rows: range,
        columns: range,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.rows, self.columns = rows, columns
        (down, down_weights), (across, across_weights) = (
            taps(length, size) for length, size in zip(source, target, strict=True)
        )
        down, down_weights = down[rows.start : rows.stop], down_weights[rows.start : rows.stop]
        across, across_weights = (
            across[columns.start : columns.stop],
            across_weights[columns.start : columns.stop],
        )
        self._box = (
            slice(int(down.min()), int(down.max()) + 1),
            slice(int(across.min()), int(across.max()) + 1),
        )
        height, width = (part.stop - part.start for part in self._box)
        self._across = _Sums(across - across.min(), across_weights)
        # the planes lie below each other, so that each can have weights of its own: 1 / (255 · std) goes with them
        self._down = _Sums(
            torch.cat([down - down.min() + plane * height for plane in range(3)]),
            torch.cat([down_weights / (255 * value) for value in std]),
        )
        self.shift = torch.tensor([a / b for a, b in zip(mean, std, strict=True)]).view(3, 1, 1)
        """What is still to be subtracted: where the result is copied to its place, that costs nothing."""
        # memory that is used again for every frame: new memory would cost as much as the work
        self._frame = torch.empty(
            height, width, 3, dtype=torch.uint8
        )  # in the cache, where jumping about is cheap
        self._frame_turned = rearrange(self._frame, "h w c -> w c h")
        self._bytes = torch.empty(
            width, 3, height, dtype=torch.uint8
        )  # turned as bytes: a quarter of the memory
        self._turned = torch.zeros(width, 3 * height + PADDING)
        self._turned_part, self._bytes_flat = (
            self._turned[:, : 3 * height],
            self._bytes.view(width, 3 * height),
        )
        self._planes = torch.empty(3 * height, len(columns))

    def __call__(self, frame: Tensor) -> Tensor:
        """uint8 [H, W, 3] → float32 [3, rows, columns], to which `shift` has not been applied yet."""
        self._frame.copy_(frame[self._box])
        self._bytes.copy_(self._frame_turned)
        self._turned_part.copy_(self._bytes_flat)
        wide = self._across(self._turned)
        self._planes.copy_(wide[:, :-PADDING].T)
        return self._down(self._planes).view(3, len(self.rows), len(self.columns))


class _Sums:
    """Weighted sums of two rows of a table each: rows int64 [n, 2] and weights [n, 2] → [n, D] of a table [any, D]."""

    def __init__(self, rows: Tensor, weights: Tensor) -> None:
        self._rows, self._weights = rows.flatten(), weights.flatten()
        self._starts = torch.arange(0, len(self._rows), 2)

    def __call__(self, table: Tensor) -> Tensor:
        return F.embedding_bag(
            self._rows, table, self._starts, mode="sum", per_sample_weights=self._weights
        )


def taps(length: int, size: int) -> tuple[Tensor, Tensor]:
    """Which two of `length` pixels make each of `size`, int64 [size, 2], and their weights, float32 [size, 2].

    Bilinear, corners not aligned, no antialiasing. A place is rounded to float32 once, as torch's `interpolate` does it
    (multiplication and subtraction fused): rounded twice, a sharp edge would differ by 6e-5.

    >>> [found.tolist() for found in taps(4, 2)]
    [[[0, 1], [2, 3]], [[0.5, 0.5], [0.5, 0.5]]]
    """
    step = torch.tensor(length / size, dtype=torch.float32).double()
    place = (step * (torch.arange(size, dtype=torch.float64) + 0.5) - 0.5).float().clamp(min=0)
    before = place.floor().clamp(max=length - 1)
    share = (place - before).clamp(0, 1)
    after = (before + 1).clamp(max=length - 1)
    return torch.stack([before, after], dim=1).long(), torch.stack([1 - share, share], dim=1)
