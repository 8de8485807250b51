"""Finish a batch of random crops on the model's device (`augment.device=model`).

    worker   frames ─ RandAugment ─ colour jitter ─ random crop, uint8 ─┐ + the numbers drawn
    device           resize to S×S · flip · normalise · erase, B at once └▶ float32 [B, 3, T, S, S]

The worker draws every number from the sample's generator, so the clips equal those of
`augment.device=worker` to float rounding. Crops travel as bytes, about a quarter of the size of
finished clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from einops import rearrange
from torch import Tensor

from hiera_video.data.transforms.clip_sample import PendingCrop
from hiera_video.data.transforms.resize import bilinear_taps

CLIPS_AT_ONCE = 8
"""Clips finished together: bounds the memory of the indices, 8 bytes for each of T·S·S pixels."""


def finish_batch(pixels: Tensor, pending: Sequence[PendingCrop]) -> Tensor:
    """Resize, flip, normalise and erase a batch of crops of different sizes.

    Args:
        pixels: uint8 [N] on any device: the crops [T, h, w, 3], one after another.
        pending: What to do to each of the B crops; T, size, mean and std are the same for all.

    Returns:
        float32 [B, 3, T, S, S] on the same device.
    """
    colours = pixels.view(-1, 3)
    starts = list(
        accumulate((t * h * w for t, h, w in (crop.shape for crop in pending)), initial=0)
    )
    size, frames = pending[0].size, pending[0].shape[0]
    clips = torch.empty(len(pending), 3, frames, size, size, device=pixels.device)
    for first in range(0, len(pending), CLIPS_AT_ONCE):
        part = slice(first, min(first + CLIPS_AT_ONCE, len(pending)))
        resized = _resize(colours, starts[part], pending[part])
        clips[part] = rearrange(resized, "b t h w c -> b c t h w")
    for clip, crop in zip(clips, pending):
        if crop.erasure is not None:
            crop.erasure.fill(clip)
    return clips


def _resize(colours: Tensor, starts: Sequence[int], crops: Sequence[PendingCrop]) -> Tensor:
    """Return the crops resized, flipped and normalised, float32 [b, T, S, S, 3].

    Each output pixel is gathered from the four around its place in the crop, so that crops of all
    sizes go together.
    """
    device, size = colours.device, crops[0].size
    above, below, weight_y = _taps([crop.shape[1] for crop in crops], size)
    left, right, weight_x = _taps([crop.shape[2] for crop in crops], size)
    flips = torch.tensor([crop.flip for crop in crops])[:, None]
    left, right, weight_x = (
        torch.where(flips, side.flip(1), side)[:, None, None, :].to(device)
        for side in (left, right, weight_x)
    )
    frames = crops[0].shape[0]
    widths = torch.tensor([crop.shape[2] for crop in crops])
    frame_pixels = torch.tensor([crop.shape[1] * crop.shape[2] for crop in crops])
    frame_starts = torch.tensor(starts)[:, None] + torch.arange(frames) * frame_pixels[:, None]

    def interpolate_along(lines: Tensor) -> Tensor:
        """Return one source row for each output row, interpolated along x: [b, T, S, S, 3]."""
        rows = frame_starts[:, :, None] + (lines * widths[:, None])[:, None]  # [b, T, S]
        rows = rows.to(device)[..., None]
        fraction = weight_x[..., None]
        return colours[rows + left].float() * (1 - fraction) + (
            colours[rows + right].float() * fraction
        )

    fraction = weight_y[:, None, :, None, None].to(device)
    resized = interpolate_along(above) * (1 - fraction) + interpolate_along(below) * fraction
    mean, std = (
        torch.tensor(values, dtype=torch.float32, device=device)
        for values in (crops[0].mean, crops[0].std)
    )
    return (resized - mean * 255) / (std * 255)


def _taps(lengths: Sequence[int], size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two source pixels of each output pixel, int64 [b, S], and the second's weight."""
    places, weights = zip(*(bilinear_taps(length, size) for length in lengths))
    before, after = torch.stack(places).unbind(dim=-1)
    return before, after, torch.stack(weights)[..., 1]
