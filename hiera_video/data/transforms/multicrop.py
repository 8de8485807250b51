"""Test views of a video as boxes of its resized clips, so that overlapping crops share memory."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


class ReusedBuffer:
    """A float32 buffer that is reused once nothing refers to its contents.

    A worker sends its result away at once. Allocating memory for each video instead would take 1.5
    times the CPU time of resizing (benchmarks/transforms_v2.py).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._array = np.empty(0, np.float32)

    def take(self, shape: tuple[int, ...]) -> Tensor:
        """Return an uninitialised float32 tensor of this shape."""
        with self._lock:
            # 2: this object and the call itself; a tensor, or a view of one, would be another
            if self._array.shape != shape or sys.getrefcount(self._array) > 2:
                # numpy asks Linux for huge pages, torch does not
                self._array = np.empty(shape, np.float32)
            return torch.from_numpy(self._array)

    def __reduce__(self) -> tuple[type[ReusedBuffer], tuple[()]]:
        return ReusedBuffer, ()


@dataclass(frozen=True, kw_only=True)
class Crops:
    """V = clips × boxes views, the crops of a clip side by side."""

    clips: Tensor
    """float32 [n, 3, T, H, W], resized and normalised."""
    boxes: tuple[tuple[int, int, int, int], ...]
    """(top, left, height, width) of each crop."""

    def __len__(self) -> int:
        return len(self.clips) * len(self.boxes)

    def __iter__(self) -> Iterator[Tensor]:
        """Iterate over the views [3, T, S, S], without copying."""
        for clip in self.clips:
            for top, left, height, width in self.boxes:
                yield clip[..., top : top + height, left : left + width]

    def stack(self) -> Tensor:
        """Return all views in one tensor [V, 3, T, S, S]."""
        return torch.stack(list(self))
