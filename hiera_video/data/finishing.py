"""Crop, flip, normalise and erase on the model's device, a batch at a time (`augment.device=model`).

    worker   frames ─ RandAugment ─ colour jitter ─ the box of the random crop, uint8 ─┐ + numbers drawn
    device                     scale to S×S · flip · normalise · erase, B clips at once └▶ float32 [B, 3, T, S, S]

Every number is drawn where it always is, from the sample's generator, so that the clips are those of
`augment.device=worker` to float rounding; boxes travel as bytes, at about a quarter of the finished clips' size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from einops import rearrange
from torch import Tensor

CLIPS_AT_ONCE = 8
"""Finished together: bounds the memory of the indices, 8 bytes for each of T·S·S pixels."""


@dataclass(frozen=True, kw_only=True)
class Erasure:
    """One box, at one place in all frames, and what fills it."""

    top: int
    left: int
    noise: Tensor
    """float32 [T, 3, height, width], normal."""

    def fill(self, clip: Tensor) -> None:
        """Erase the box in a normalised clip [3, T, S, S]."""
        height, width = self.noise.shape[-2:]
        noise = rearrange(self.noise.to(clip.device, non_blocking=True), "t c h w -> c t h w")
        clip[:, :, self.top : self.top + height, self.left : self.left + width] = noise


@dataclass(frozen=True, kw_only=True)
class UnfinishedClip:
    """A training clip up to the random crop, and what is left to do."""

    box: Tensor
    """uint8 [T, h, w, 3], the crop at its own size."""
    flip: bool
    erasure: Erasure | None
    size: int
    """Side of the finished clip."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Finishing:
    """What is left to do to a batch whose boxes lie one after the other in one flat tensor."""

    shapes: tuple[tuple[int, int, int], ...]
    """(T, h, w) of each clip's box; T is the same for all."""
    flips: tuple[bool, ...]
    erasures: tuple[Erasure | None, ...]
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, boxes: Tensor) -> Tensor:
        """uint8 [bytes] on any device → float32 [B, 3, T, S, S] there."""
        pixels = boxes.view(-1, 3)
        sizes = [frames * height * width for frames, height, width in self.shapes]
        starts = list(accumulate(sizes, initial=0))
        size, clips = self.size, len(self.shapes)
        out = torch.empty(clips, 3, self.shapes[0][0], size, size, device=boxes.device)
        for first in range(0, clips, CLIPS_AT_ONCE):
            some = slice(first, min(first + CLIPS_AT_ONCE, clips))
            out[some] = rearrange(self._scaled(pixels, starts[some], some), "b t h w c -> b c t h w")
        for clip, erasure in zip(out, self.erasures):
            if erasure is not None:
                erasure.fill(clip)
        return out

    def _scaled(self, pixels: Tensor, starts: Sequence[int], some: slice) -> Tensor:
        """Boxes of the clips `some`, scaled, flipped and normalised: float32 [b, T, S, S, 3].

        Each output pixel is gathered from the four around its place in the box, so that boxes of all sizes go together.
        """
        device, shapes = pixels.device, self.shapes[some]
        above, below, weight_y = _taps([height for _, height, _ in shapes], self.size)
        left, right, weight_x = _taps([width for _, _, width in shapes], self.size)
        flips = torch.tensor(self.flips[some])[:, None]
        left, right, weight_x = (torch.where(flips, taps.flip(1), taps) for taps in (left, right, weight_x))
        left, right, weight_x = (taps[:, None, None, :].to(device) for taps in (left, right, weight_x))
        widths = torch.tensor([width for _, _, width in shapes])
        frame_pixels = torch.tensor([height * width for _, height, width in shapes])
        frame_starts = torch.tensor(starts)[:, None] + torch.arange(shapes[0][0]) * frame_pixels[:, None]  # [b, T]

        def row(taps: Tensor) -> Tensor:
            """One row of pixels above or below each output row, [b, T, S, S, 3], interpolated along it."""
            rows = (frame_starts[:, :, None] + (taps * widths[:, None])[:, None]).to(device)[..., None]
            start, share = pixels[rows + left].float(), weight_x[..., None]
            return start * (1 - share) + pixels[rows + right].float() * share

        share = weight_y[:, None, :, None, None].to(device)
        scaled = row(above) * (1 - share) + row(below) * share
        means, stds = (torch.tensor(values, dtype=torch.float32, device=device) for values in (self.mean, self.std))
        return (scaled - means * 255) / (stds * 255)


def together(clips: Sequence[Tensor | UnfinishedClip]) -> tuple[Tensor, Finishing | None]:
    """The clips of a batch as one tensor: stacked if they are finished, else their boxes' bytes and what is left."""
    left = [clip for clip in clips if isinstance(clip, UnfinishedClip)]
    if not left:
        return torch.stack([clip for clip in clips if isinstance(clip, Tensor)]), None
    assert len(left) == len(clips)
    finishing = Finishing(
        shapes=tuple((clip.box.shape[0], clip.box.shape[1], clip.box.shape[2]) for clip in left),
        flips=tuple(clip.flip for clip in left),
        erasures=tuple(clip.erasure for clip in left),
        size=left[0].size,
        mean=left[0].mean,
        std=left[0].std,
    )
    return torch.cat([clip.box.reshape(-1) for clip in left]), finishing


def _taps(lengths: Sequence[int], size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where the `size` output pixels of a side of each length come from: the pixel before, the one after, both int64
    [b, size], and the weight of the one after, float32 [b, size]. Bilinear, corners not aligned; a place is rounded once,
    as torch's `interpolate` does it (multiply and add fused): rounded twice, a sharp edge would differ by 6e-5.

    >>> [taps.tolist() for taps in _taps([2], 4)]
    [[[0, 0, 0, 1]], [[1, 1, 1, 1]], [[0.0, 0.25, 0.75, 0.25]]]
    """
    length = torch.tensor(lengths, dtype=torch.float32)[:, None]
    step = (length / size).double()
    place = (step * (torch.arange(size) + 0.5) - 0.5).float().clamp(min=0)
    before = torch.minimum(place.floor(), length - 1)
    after = torch.minimum(before + 1, length - 1)
    return before.long(), after.long(), (place - before).clamp(0, 1)
