"""One training clip between its transform and the model, and the collation of several.

A transform draws every random number of a clip. What it has not yet computed travels with the
pixels as a `PendingCrop`, so that the work can be done in a loader's worker (`ClipSample.finish`)
or for a whole batch on the model's device (`on_device.finish_batch`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from hiera_video.data.transforms.resize import CropResizer


@dataclass(frozen=True, kw_only=True)
class Erasure:
    """A box, at the same place in all frames, and the noise that fills it."""

    top: int
    left: int
    noise: Tensor
    """float32 [T, 3, height, width], normal."""

    def fill(self, clip: Tensor) -> None:
        """Erase the box in a normalised clip [3, T, S, S], in place."""
        height, width = self.noise.shape[-2:]
        noise = rearrange(self.noise, "t c h w -> c t h w")
        clip[:, :, self.top : self.top + height, self.left : self.left + width] = noise


@dataclass(frozen=True, kw_only=True)
class PendingCrop:
    """Remaining work on a random crop: resize, flip, normalise and erase."""

    shape: tuple[int, int, int]
    """(T, h, w) of the crop at its own size."""
    flip: bool
    erasure: Erasure | None
    size: int
    """Side of the finished clip."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class ClipSample:
    """A training clip, and what remains to be done to it."""

    pixels: Tensor
    """float32 [3, T, S, S] if nothing remains, else the random crop, uint8 [T, h, w, 3]."""
    pending: PendingCrop | None = None

    def finish(self) -> ClipSample:
        """Return the finished clip, computed on the CPU frame by frame."""
        pending = self.pending
        if pending is None:
            return self
        frames, height, width = pending.shape
        resizer = CropResizer(
            (height, width),
            (pending.size, pending.size),
            rows=range(pending.size),
            columns=range(pending.size),
            mean=pending.mean,
            std=pending.std,
        )
        # numpy asks Linux for huge pages, torch does not
        clip = torch.from_numpy(np.empty((3, frames, pending.size, pending.size), np.float32))
        for time, frame in enumerate(self.pixels):
            resized = resizer(frame)
            torch.sub(
                resized.flip(-1) if pending.flip else resized, resizer.shift, out=clip[:, time]
            )
        if pending.erasure is not None:
            pending.erasure.fill(clip)
        return ClipSample(pixels=clip)


def collate(samples: Sequence[ClipSample]) -> tuple[Tensor, tuple[PendingCrop, ...]]:
    """Return the pixels of all samples as one tensor, and what remains to be done to each.

    Args:
        samples: Clips that are all finished, or all pending.

    Returns:
        float32 [B, 3, T, S, S] and nothing; or the crops' bytes one after another, uint8 [N], and
        B pending crops.
    """
    pixels = torch.cat([sample.pixels.reshape(-1) for sample in samples])
    pending = tuple(sample.pending for sample in samples if sample.pending is not None)
    if not pending:
        return pixels.view(len(samples), *samples[0].pixels.shape), ()
    assert len(pending) == len(samples), "some clips of the batch are finished, others are not"
    return pixels, pending
