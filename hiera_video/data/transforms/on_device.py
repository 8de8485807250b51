"""Finish a batch of random crops on the model's device (`augment.device=model`).

    worker   frames ─ RandAugment ─ colour jitter ─ random crop, uint8 ─┐ + the numbers drawn
    device           resize to S×S · flip · normalise · erase, B at once └▶ float32 [B, 3, T, S, S]

The worker draws every number from the sample's generator, so the clips equal those of
`augment.device=worker` to float rounding. Crops travel as bytes, about a quarter of the size of
finished clips. All that the device needs travels with them as tensors: tensors that are made from
numbers at the last moment would make the host wait for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from einops import rearrange
from torch import Tensor

from hiera_video.data.config import AugmentConfig
from hiera_video.data.transforms.clip_sample import PendingCrop
from hiera_video.data.transforms.resize import bilinear_taps

CLIPS_AT_ONCE = 8
"""Clips finished together: bounds the memory of the indices, 8 bytes for each of T·S·S pixels."""


def place_augmentation(augment: AugmentConfig, device: torch.device) -> AugmentConfig:
    """Return `augment` with `device=auto` resolved for a model on `device`."""
    if augment.device != "auto":
        return augment
    return replace(augment, device="model" if device.type == "cuda" else "worker")


@dataclass(frozen=True, kw_only=True)
class PendingBatch:
    """Remaining work on a batch of B crops of T frames, resized to S×S."""

    lines: Tensor
    """Source pixels of each output pixel: rows above and below, columns left and right (flipped
    where the clip is), int64 [4, B, S]."""
    weights: Tensor
    """Weight of the row below and of the column on the right, float32 [2, B, S]."""
    frames: Tensor
    """First pixel of each frame, counted over all crops, int64 [B, T]."""
    widths: Tensor
    """Width of each crop, int64 [B]."""
    colours: Tensor
    """Mean and standard deviation of the channels, float32 [2, 3]."""
    boxes: tuple[tuple[int, int, int], ...]
    """(clip, top, left) of each erased box."""
    noise: tuple[Tensor, ...]
    """What fills each box, float32 [T, 3, height, width]."""

    @classmethod
    def of(cls, crops: Sequence[PendingCrop]) -> PendingBatch:
        """Describe the work on `crops`; T, size, mean and std are the same for all."""
        above, below, weight_y = _taps([crop.shape[1] for crop in crops], crops[0].size)
        left, right, weight_x = _taps([crop.shape[2] for crop in crops], crops[0].size)
        flips = torch.tensor([crop.flip for crop in crops])[:, None]
        left, right, weight_x = (
            torch.where(flips, side.flip(1), side) for side in (left, right, weight_x)
        )
        starts = accumulate((t * h * w for t, h, w in (crop.shape for crop in crops)), initial=0)
        frame_pixels = torch.tensor([crop.shape[1] * crop.shape[2] for crop in crops])
        times = torch.arange(crops[0].shape[0])
        erasures = [(i, crop.erasure) for i, crop in enumerate(crops) if crop.erasure is not None]
        return cls(
            lines=torch.stack([above, below, left, right]),
            weights=torch.stack([weight_y, weight_x]),
            frames=torch.tensor(list(starts)[:-1])[:, None] + times * frame_pixels[:, None],
            widths=torch.tensor([crop.shape[2] for crop in crops]),
            colours=torch.tensor([crops[0].mean, crops[0].std], dtype=torch.float32),
            boxes=tuple((i, erasure.top, erasure.left) for i, erasure in erasures),
            noise=tuple(erasure.noise for _, erasure in erasures),
        )

    def tensors(self) -> list[Tensor]:
        """Return what the device needs."""
        return [self.lines, self.weights, self.frames, self.widths, self.colours, *self.noise]

    def on_device(self, moved: Sequence[Tensor]) -> PendingBatch:
        """Return the same work with its `tensors` on the device."""
        lines, weights, frames, widths, colours, *noise = moved
        return PendingBatch(
            lines=lines,
            weights=weights,
            frames=frames,
            widths=widths,
            colours=colours,
            boxes=self.boxes,
            noise=tuple(noise),
        )


def finish_batch(pixels: Tensor, pending: PendingBatch) -> Tensor:
    """Resize, flip, normalise and erase a batch of crops of different sizes.

    Args:
        pixels: uint8 [N]: the crops [T, h, w, 3], one after another.
        pending: What to do to the B crops, on the same device.

    Returns:
        float32 [B, 3, T, S, S] on the same device.
    """
    colours = pixels.view(-1, 3)
    (count, frames), size = pending.frames.shape, pending.lines.shape[-1]
    clips = torch.empty(count, 3, frames, size, size, device=pixels.device)
    for first in range(0, count, CLIPS_AT_ONCE):
        part = slice(first, min(first + CLIPS_AT_ONCE, count))
        clips[part] = rearrange(_resize(colours, pending, part), "b t h w c -> b c t h w")
    for (clip, top, left), noise in zip(pending.boxes, pending.noise):
        height, width = noise.shape[-2:]
        box = clips[clip, :, :, top : top + height, left : left + width]
        box.copy_(rearrange(noise, "t c h w -> c t h w"))
    return clips


def _resize(colours: Tensor, pending: PendingBatch, part: slice) -> Tensor:
    """Return some of the crops resized, flipped and normalised, float32 [b, T, S, S, 3].

    Each output pixel is gathered from the four around its place in the crop, so that crops of all
    sizes go together.
    """
    above, below, left, right = pending.lines[:, part]
    weight_y, weight_x = pending.weights[:, part]
    widths, frames = pending.widths[part, None], pending.frames[part, :, None]
    left, right = left[:, None, None, :], right[:, None, None, :]
    fraction_x = weight_x[:, None, None, :, None]

    def interpolate_along(lines: Tensor) -> Tensor:
        """Return one source row for each output row, interpolated along x: [b, T, S, S, 3]."""
        rows = (frames + (lines * widths)[:, None])[..., None]  # [b, T, S, 1]
        on_left, on_right = colours[rows + left].float(), colours[rows + right].float()
        line: Tensor = on_left * (1 - fraction_x) + on_right * fraction_x
        return line

    fraction_y = weight_y[:, None, :, None, None]
    resized = interpolate_along(above) * (1 - fraction_y) + interpolate_along(below) * fraction_y
    mean, std = pending.colours
    normalised: Tensor = (resized - mean * 255) / (std * 255)
    return normalised


def _taps(lengths: Sequence[int], size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two source pixels of each output pixel, int64 [b, S], and the second's weight."""
    places, weights = zip(*(bilinear_taps(length, size) for length in lengths))
    before, after = torch.stack(places).unbind(dim=-1)
    return before, after, torch.stack(weights)[..., 1]
