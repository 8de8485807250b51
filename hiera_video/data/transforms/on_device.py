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

from hiera_video.data.transforms.resize import taps

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
            out[some] = rearrange(
                self._scaled(pixels, starts[some], some), "b t h w c -> b c t h w"
            )
        for clip, erasure in zip(out, self.erasures):
            if erasure is not None:
                erasure.fill(clip)
        return out

    def _scaled(self, pixels: Tensor, starts: Sequence[int], some: slice) -> Tensor:
        """Boxes of the clips `some`, scaled, flipped and normalised: float32 [b, T, S, S, 3].

        Each output pixel is gathered from the four around its place in the box, so that boxes of all sizes go together.
        """
        device, shapes = pixels.device, self.shapes[some]
        above, below, weight_y = self._taps([height for _, height, _ in shapes])
        left, right, weight_x = self._taps([width for _, _, width in shapes])
        flips = torch.tensor(self.flips[some])[:, None]
        left, right, weight_x = (
            torch.where(flips, side.flip(1), side) for side in (left, right, weight_x)
        )
        left, right, weight_x = (
            side[:, None, None, :].to(device) for side in (left, right, weight_x)
        )
        widths = torch.tensor([width for _, _, width in shapes])
        frame_pixels = torch.tensor([height * width for _, height, width in shapes])
        frame_starts = (
            torch.tensor(starts)[:, None] + torch.arange(shapes[0][0]) * frame_pixels[:, None]
        )  # [b, T]

        def row(lines: Tensor) -> Tensor:
            """One row of pixels above or below each output row, [b, T, S, S, 3], interpolated along it."""
            rows = (frame_starts[:, :, None] + (lines * widths[:, None])[:, None]).to(device)[
                ..., None
            ]
            start, share = pixels[rows + left].float(), weight_x[..., None]
            return start * (1 - share) + pixels[rows + right].float() * share

        share = weight_y[:, None, :, None, None].to(device)
        scaled = row(above) * (1 - share) + row(below) * share
        means, stds = (
            torch.tensor(values, dtype=torch.float32, device=device)
            for values in (self.mean, self.std)
        )
        return (scaled - means * 255) / (stds * 255)

    def _taps(self, lengths: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """For boxes' sides of these lengths: the two pixels that make each output pixel, int64 [b, S], and the weight of
        the second, float32 [b, S]."""
        places, weights = zip(*(taps(length, self.size) for length in lengths))
        before, after = torch.stack(places).unbind(dim=-1)
        return before, after, torch.stack(weights)[..., 1]


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
