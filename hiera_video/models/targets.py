"""What the masked autoencoder predicts for a hidden token, and how predictions become pictures again."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from hiera_video.errors import ConfigError
from hiera_video.models.layout import HieraConfig
from hiera_video.models.registry import MaeConfig

HOG_BINS = 9
HOG_CELL = 8
_VARIANCE_EPS = 1e-6


class Target:
    """Cuts clips into one target vector a token of the final grid, in spatial order."""

    def __init__(self, config: HieraConfig, mae: MaeConfig) -> None:
        self.kind = mae.target
        self.video = len(config.input_size) == 3
        pixels = [size // tokens for size, tokens in zip(config.input_size, config.final_grid)]
        self.frames, self.height, self.width = (pixels if self.video else [1, *pixels])[-3:]
        self.all_frames = mae.target_frames == "all"
        self.grid = dict(zip("thw" if self.video else "hw", config.final_grid))
        channels = config.in_chans * (self.frames if self.all_frames else 1)
        if self.kind == "hog":
            if self.height % HOG_CELL or self.width % HOG_CELL:
                raise ConfigError(
                    f"mae.target='hog': tokens are {self.height}x{self.width} pixels, which cells of {HOG_CELL}x{HOG_CELL} "
                    "do not divide; use 'pixels'"
                )
            self.size = channels * HOG_BINS * (self.height // HOG_CELL) * (self.width // HOG_CELL)
        else:
            self.size = channels * self.height * self.width

    def patches(self, clips: Tensor) -> Tensor:
        """[B, C, (T,) H, W] to [B, tokens, size]: pixels, or histograms, not yet normalised.

        Order inside a vector, which the published weights fix: (frame, row, column, channel) for video, (channel, row,
        column) for images."""
        maps = self._predicted_frames(clips)
        cell_h, cell_w = self.height, self.width
        if self.kind == "hog":
            maps, cell_h, cell_w = hog(maps), self.height // HOG_CELL, self.width // HOG_CELL
        if self.video:
            return rearrange(
                maps,
                "b c (t f) (h p) (w q) -> b (t h w) (f p q c)",
                p=cell_h,
                q=cell_w,
                **self._time(),
            )
        return rearrange(maps, "b c (h p) (w q) -> b (h w) (c p q)", p=cell_h, q=cell_w)

    def normalised(self, patches: Tensor) -> Tensor:
        """Each pixel patch by its own mean and unbiased variance (the paper); histograms are normalised already."""
        if self.kind == "hog":
            return patches
        mean, deviation = _moments(patches)
        return (patches - mean) / deviation

    @torch.no_grad()
    def pictures(
        self, clips: Tensor, predicted: Tensor, masked: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Three clips [B, C, (t,) H, W] in the input's normalised colours, at the frames that are predicted: the
        original, the original with hidden tokens at 0 (grey), and that with the predictions filled in.

        predicted: [B, tokens, size], read where `masked` [B, tokens] is True; brought to the true patch's mean and
        variance, which the normalised target does not tell."""
        if self.kind != "pixels":
            raise ConfigError(
                f"mae.target={self.kind!r}: histograms cannot be shown as pictures; only 'pixels' can"
            )
        patches = self.patches(clips.float())
        mean, deviation = _moments(patches)
        hidden = masked.unsqueeze(-1)
        seen = patches.masked_fill(hidden, 0.0)
        filled = torch.where(hidden, predicted.float() * deviation + mean, patches)
        return self._assemble(patches), self._assemble(seen), self._assemble(filled)

    def _assemble(self, patches: Tensor) -> Tensor:
        sizes = {"p": self.height, "q": self.width, **self.grid}
        if self.video:
            return rearrange(
                patches,
                "b (t h w) (f p q c) -> b c (t f) (h p) (w q)",
                **sizes,
                **self._frame_count(),
            )
        return rearrange(patches, "b (h w) (c p q) -> b c (h p) (w q)", **sizes)

    def _predicted_frames(self, clips: Tensor) -> Tensor:
        return clips if self.all_frames or not self.video else clips[:, :, :: self.frames]

    def _time(self) -> dict[str, int]:
        return {"t": self.grid["t"]}

    def _frame_count(self) -> dict[str, int]:
        return {"f": self.frames if self.all_frames else 1}


def hog(maps: Tensor) -> Tensor:
    """Histograms of oriented gradients, channel by channel: [B, C, (T,) H, W] to [B, C * 9, (T,) H/8, W/8].

    9 unsigned orientations, cells of 8x8 pixels, each cell's histogram of unit length: MaskFeat's target (arXiv
    2112.09133), which the Hiera paper's ablation tries (85.5 to 86.1 at 800 epochs)."""
    images = (
        maps.float().flatten(0, 1)
        if maps.ndim == 4
        else rearrange(maps.float(), "b c t h w -> (b c t) h w")
    )
    padded = F.pad(images.unsqueeze(1), (1, 1, 1, 1), mode="reflect").squeeze(1)
    across = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    strength = (across.square() + down.square()).sqrt()
    angle = torch.atan2(down, across) % math.pi  # a line has no direction
    bins = (angle / math.pi * HOG_BINS).long().clamp(max=HOG_BINS - 1)
    votes = [
        F.avg_pool2d(torch.where(bins == bin_, strength, 0.0), HOG_CELL) for bin_ in range(HOG_BINS)
    ]
    histograms = F.normalize(torch.stack(votes, dim=1), dim=1)
    if maps.ndim == 4:
        return rearrange(histograms, "(b c) n h w -> b (c n) h w", b=maps.shape[0])
    return rearrange(histograms, "(b c t) n h w -> b (c n) t h w", b=maps.shape[0], c=maps.shape[1])


def _moments(patches: Tensor) -> tuple[Tensor, Tensor]:
    mean = patches.mean(dim=-1, keepdim=True)
    return mean, (patches.var(dim=-1, keepdim=True) + _VARIANCE_EPS).sqrt()
