"""The views of a video as crops of its scaled clips: what is common to them is computed, kept and sent once."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor


class Memory:
    """Memory for scaled clips, used again once nobody looks at what is in it: new memory would cost a loader's worker, whose
    result is sent away at once, a fifth of the time of scaling."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = np.empty(0, np.float32)

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        """float32 of this shape; what is in it is anything."""
        with self._lock:
            # 2: this object and the call itself; a tensor, or a view of one, would be another
            if self._held.shape != shape or sys.getrefcount(self._held) > 2:
                self._held = np.empty(
                    shape, np.float32
                )  # numpy asks Linux for huge pages, torch does not
            return torch.from_numpy(self._held)

    def __reduce__(self) -> tuple[type[Memory], tuple[()]]:
        return Memory, ()


@dataclass(frozen=True, kw_only=True)
class Crops:
    """V = clips × boxes views, the crops of a clip side by side."""

    clips: Tensor
    """float32 [n, 3, T, H, W], scaled and normalised."""
    boxes: tuple[tuple[int, int, int, int], ...]
    """(top, left, height, width) of each crop."""

    def __len__(self) -> int:
        return len(self.clips) * len(self.boxes)

    def __iter__(self) -> Iterator[Tensor]:
        """Each view [3, T, S, S], without a copy."""
        for clip in self.clips:
            for top, left, height, width in self.boxes:
                yield clip[..., top : top + height, left : left + width]

    def stacked(self) -> Tensor:
        """All views [V, 3, T, S, S]."""
        return torch.stack(list(self))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The clips of `parts`, which have the same boxes."""
        first = parts[0]
        if len(parts) == 1:
            return first
        assert all(part.boxes == first.boxes for part in parts)
        return cls(clips=torch.cat([part.clips for part in parts]), boxes=first.boxes)
