"""Resize frames bilinearly and normalise them: torch's `interpolate` to float rounding, but faster.

Training crops run 2.5 × as fast as with torchvision.transforms.v2 on float32, test crops 1.7 to 2 ×
(benchmarks/transforms_v2.py). v2 on uint8 is slower too, and rounds to grey levels.

Each row of a resized frame is a weighted sum of two rows, and each column one of two columns.
`embedding_bag` sums rows by weight in one pass through memory; so the frame is transposed for the
columns, and back for the rows:

    uint8 [H, W, 3] ─▶ [W, 3·H] ─pairs of columns─▶ [w, 3·H] ─▶ [3·H, w] ─pairs of rows─▶ [3, h, w]

One frame at a time, so that all of this stays in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

PADDING = 4
"""Unused numbers at a row's end: rows a power of two apart evict each other from the cache."""


class CropResizer:
    """Resizes and normalises frames of one size, and computes only a part of each.

    Args:
        source: (height, width) of the frames.
        target: (height, width) that they are resized to.
        rows: Rows of the resized frame to compute.
        columns: Columns of the resized frame to compute.
        mean: Mean of the RGB channels in [0, 1].
        std: Standard deviation of the RGB channels in [0, 1].
    """

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
        down, down_weights = bilinear_taps(source[0], target[0])
        down, down_weights = down[rows.start : rows.stop], down_weights[rows.start : rows.stop]
        across, across_weights = bilinear_taps(source[1], target[1])
        across = across[columns.start : columns.stop]
        across_weights = across_weights[columns.start : columns.stop]
        self._needed = (
            slice(int(down.min()), int(down.max()) + 1),
            slice(int(across.min()), int(across.max()) + 1),
        )
        height, width = (part.stop - part.start for part in self._needed)
        self._sum_columns = _PairSums(across - across.min(), across_weights)
        # the planes lie below each other, so that each has weights of its own: 1 / (255 · std)
        self._sum_rows = _PairSums(
            torch.cat([down - down.min() + plane * height for plane in range(3)]),
            torch.cat([down_weights / (255 * value) for value in std]),
        )
        self.shift = torch.tensor([a / b for a, b in zip(mean, std, strict=True)]).view(3, 1, 1)
        """mean / std: subtracted by the caller, at no cost, as it copies the result."""
        # buffers are reused for every frame: allocating them would cost as much as the work
        self._frame = torch.empty(height, width, 3, dtype=torch.uint8)
        self._frame_turned = rearrange(self._frame, "h w c -> w c h")
        self._bytes = torch.empty(width, 3, height, dtype=torch.uint8)  # a quarter of the floats
        self._turned = torch.zeros(width, 3 * height + PADDING)
        self._turned_part = self._turned[:, : 3 * height]
        self._bytes_flat = self._bytes.view(width, 3 * height)
        self._planes = torch.empty(3 * height, len(columns))

    def __call__(self, frame: Tensor) -> Tensor:
        """Return the part `rows` × `columns` of a resized frame, with `shift` still to subtract.

        Args:
            frame: uint8 [H, W, 3].

        Returns:
            float32 [3, rows, columns].
        """
        self._frame.copy_(frame[self._needed])
        self._bytes.copy_(self._frame_turned)
        self._turned_part.copy_(self._bytes_flat)
        wide = self._sum_columns(self._turned)
        self._planes.copy_(wide[:, :-PADDING].T)
        return self._sum_rows(self._planes).view(3, len(self.rows), len(self.columns))


class _PairSums:
    """Weighted sums of pairs of rows: rows int64 [n, 2], weights [n, 2], of a table [any, D]."""

    def __init__(self, rows: Tensor, weights: Tensor) -> None:
        self._rows, self._weights = rows.flatten(), weights.flatten()
        self._starts = torch.arange(0, len(self._rows), 2)

    def __call__(self, table: Tensor) -> Tensor:
        return F.embedding_bag(
            self._rows, table, self._starts, mode="sum", per_sample_weights=self._weights
        )


def bilinear_taps(length: int, size: int) -> tuple[Tensor, Tensor]:
    """Return the two source pixels of each output pixel, and their weights.

    Bilinear, corners not aligned, no antialiasing. A place is rounded to float32 once, as in
    torch's `interpolate` (where multiplication and subtraction are fused): rounded twice, a sharp
    edge would differ by 6e-5.

    Args:
        length: Pixels of the source.
        size: Pixels of the output.

    Returns:
        Indices int64 [size, 2] and weights float32 [size, 2].

    >>> [found.tolist() for found in bilinear_taps(4, 2)]
    [[[0, 1], [2, 3]], [[0.5, 0.5], [0.5, 0.5]]]
    """
    step = torch.tensor(length / size, dtype=torch.float32).double()
    place = (step * (torch.arange(size, dtype=torch.float64) + 0.5) - 0.5).float().clamp(min=0)
    before = place.floor().clamp(max=length - 1)
    fraction = (place - before).clamp(0, 1)
    after = (before + 1).clamp(max=length - 1)
    indices = torch.stack([before, after], dim=1).long()
    return indices, torch.stack([1 - fraction, fraction], dim=1)
