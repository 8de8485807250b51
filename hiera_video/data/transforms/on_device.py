"""Finish a batch of random crops on the model's device (`augment.device=model`).

    worker   frames ─ RandAugment ─ colour jitter ─ random crop, uint8 ─┐ + the numbers drawn
    device                    resize to S×S · flip · normalise · erase └▶ float32 [B, 3, T, S, S]

The worker draws every number from the sample's generator, so the clips equal those of
`augment.device=worker` to float rounding; on the CPU the code is the same. Crops travel as bytes,
about a quarter of the size of finished clips. All that the device needs travels with them as
tensors: tensors that are made from numbers at the last moment would make the host wait for the
device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from hiera_video.data.config import AugmentConfig
from hiera_video.data.transforms.clip_sample import ClipSample, PendingCrop


def place_augmentation(augment: AugmentConfig, device: torch.device) -> AugmentConfig:
    """Return `augment` with `device=auto` resolved for a model on `device`."""
    if augment.device != "auto":
        return augment
    return replace(augment, device="model" if device.type == "cuda" else "worker")


@dataclass(frozen=True)
class PendingBatch:
    """Remaining work on a batch of crops, and the tensors that the device needs for it."""

    crops: tuple[PendingCrop, ...]
    """The work on each crop; T, size, mean and std are the same for all."""
    colours: Tensor
    """Mean and standard deviation of the channels, float32 [2, 3]."""
    noise: tuple[Tensor, ...]
    """Noise that fills the box of each crop that has one, float32 [T, 3, height, width]."""

    @classmethod
    def of(cls, crops: Sequence[PendingCrop]) -> PendingBatch:
        """Describe the work on `crops`."""
        colours = torch.tensor([crops[0].mean, crops[0].std], dtype=torch.float32)
        noise = tuple(crop.erasure.noise for crop in crops if crop.erasure is not None)
        return cls(tuple(crops), colours, noise)

    def tensors(self) -> list[Tensor]:
        """Return what the device needs."""
        return [self.colours, *self.noise]

    def on_device(self, moved: Sequence[Tensor]) -> PendingBatch:
        """Return the same work with its `tensors` on the device."""
        return PendingBatch(self.crops, moved[0], tuple(moved[1:]))


def finish_batch(pixels: Tensor, pending: PendingBatch) -> Tensor:
    """Resize, flip, normalise and erase a batch of crops of different sizes.

    Args:
        pixels: uint8 [N]: the crops [T, h, w, 3], one after another.
        pending: What to do to the B crops, on the same device.

    Returns:
        float32 [B, 3, T, S, S] on the same device.
    """
    if pixels.device.type == "cpu":
        crops = zip(_split(pixels, pending), pending.crops)
        samples = [ClipSample(pixels=part, pending=crop) for part, crop in crops]
        return torch.stack([sample.finish().pixels for sample in samples])
    return finish_by_interpolation(pixels, pending)


def finish_by_interpolation(pixels: Tensor, pending: PendingBatch) -> Tensor:
    """Return what `finish_batch` does, by torch's `interpolate`: for a GPU.

    Clip by clip: gathering the pixels of all clips at once would take several times the memory
    traffic.
    """
    size, frames = pending.crops[0].size, pending.crops[0].shape[0]
    clips = torch.empty(len(pending.crops), 3, frames, size, size, device=pixels.device)
    mean, std = (values.view(3, 1, 1, 1) * 255 for values in pending.colours)
    for clip, part, crop in zip(clips, _split(pixels, pending), pending.crops):
        planes = rearrange(part, "t h w c -> c t h w")
        planes = planes.to(torch.float32, memory_format=torch.contiguous_format)
        # a GPU's kernel rounds a place once, as `bilinear_taps` does; that of the CPU twice
        resized = F.interpolate(planes, size=(size, size), mode="bilinear", align_corners=False)
        torch.sub(resized.flip(-1) if crop.flip else resized, mean, out=clip)
    clips.div_(std)
    noise = iter(pending.noise)
    for clip, crop in zip(clips, pending.crops):
        if crop.erasure is not None:
            replace(crop.erasure, noise=next(noise)).fill(clip)
    return clips


def _split(pixels: Tensor, pending: PendingBatch) -> list[Tensor]:
    """Return the crops [T, h, w, 3] of a batch."""
    parts = torch.split(pixels, [3 * math.prod(crop.shape) for crop in pending.crops])
    return [part.view(*crop.shape, 3) for part, crop in zip(parts, pending.crops)]
