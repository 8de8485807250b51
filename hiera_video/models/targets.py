"""Prediction targets of the masked autoencoder, and their conversion back to pixels."""

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


class MaeTarget:
    """Target vectors of a clip, one for each token of the final grid in spatial order."""

    def __init__(self, config: HieraConfig, mae: MaeConfig) -> None:
        self.kind = mae.target
        self.variance_floor = mae.variance_floor
        self.video = len(config.input_size) == 3
        pixels = [size // tokens for size, tokens in zip(config.input_size, config.final_grid)]
        self.frames, self.height, self.width = (pixels if self.video else [1, *pixels])[-3:]
        self.all_frames = mae.target_frames == "all"
        self.grid = dict(zip("thw" if self.video else "hw", config.final_grid))
        channels = config.in_chans * (self.frames if self.all_frames else 1)
        if self.kind == "hog":
            if self.height % HOG_CELL or self.width % HOG_CELL:
                raise ConfigError(
                    f"mae.target='hog': tokens of {self.height}x{self.width} pixels are not a "
                    f"multiple of the {HOG_CELL}x{HOG_CELL} cells; use 'pixels'"
                )
            self.size = channels * HOG_BINS * (self.height // HOG_CELL) * (self.width // HOG_CELL)
        else:
            self.size = channels * self.height * self.width

    def patches(self, clips: Tensor) -> Tensor:
        """Cut clips into unnormalised target vectors: pixels or histograms.

        The published weights fix the order inside a vector: (frame, row, column, channel) for
        video, (channel, row, column) for images.

        Args:
            clips: [B, C, (T,) H, W].

        Returns:
            [B, N, size].
        """
        maps = clips if self.all_frames or not self.video else clips[:, :, :: self.frames]
        p, q = self.height, self.width
        if self.kind == "hog":
            maps, p, q = hog(maps), p // HOG_CELL, q // HOG_CELL
            if self.video:  # channels before cells, as PySlowFast orders a vector
                pattern = "b c (t f) (h p) (w q) -> b (t h w) (f c p q)"
                return rearrange(maps, pattern, p=p, q=q, t=self.grid["t"])
        if self.video:
            pattern = "b c (t f) (h p) (w q) -> b (t h w) (f p q c)"
            return rearrange(maps, pattern, p=p, q=q, t=self.grid["t"])
        return rearrange(maps, "b c (h p) (w q) -> b (h w) (c p q)", p=p, q=q)

    def normalise(self, patches: Tensor) -> Tensor:
        """Normalise each pixel patch by its own mean and unbiased variance, as in the paper.

        `mae.variance_floor` is added to the variance.

        Histograms are returned unchanged: each cell already has unit length.
        """
        if self.kind == "hog":
            return patches
        mean, deviation = self._mean_and_deviation(patches)
        return (patches - mean) / deviation

    @torch.no_grad()
    def pictures(
        self, clips: Tensor, predicted: Tensor, masked: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the original, visible and reconstructed clips at the predicted frames.

        Predictions are scaled to the true patch's mean and variance, which the normalised target
        does not contain.

        Args:
            clips: [B, C, (T,) H, W], normalised.
            predicted: [B, N, size], used where `masked` is True.
            masked: [B, N] bool, True = hidden.

        Returns:
            Three clips [B, C, (t,) H, W] in the input's normalised colours: the original, the
            original with hidden tokens at 0 (grey), and that with the predictions filled in.

        Raises:
            ConfigError: If the target is not pixels.
        """
        if self.kind != "pixels":
            raise ConfigError(f"mae.target={self.kind!r}: only 'pixels' can be shown as pictures")
        patches = self.patches(clips.float())
        mean, deviation = self._mean_and_deviation(patches)
        hidden = masked.unsqueeze(-1)
        visible = patches.masked_fill(hidden, 0.0)
        filled = torch.where(hidden, predicted.float() * deviation + mean, patches)
        return self._assemble(patches), self._assemble(visible), self._assemble(filled)

    def _assemble(self, patches: Tensor) -> Tensor:
        """Invert `patches` for pixels."""
        sizes = {"p": self.height, "q": self.width, **self.grid}
        if self.video:
            pattern = "b (t h w) (f p q c) -> b c (t f) (h p) (w q)"
            return rearrange(patches, pattern, f=self.frames if self.all_frames else 1, **sizes)
        return rearrange(patches, "b (h w) (c p q) -> b c (h p) (w q)", **sizes)

    def _mean_and_deviation(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        variance = patches.var(dim=-1, keepdim=True) + self.variance_floor
        return patches.mean(dim=-1, keepdim=True), variance.sqrt()


def hog(maps: Tensor) -> Tensor:
    """Compute histograms of oriented gradients, channel by channel.

    9 unsigned orientations in cells of 8x8 pixels, each cell's histogram scaled to unit length:
    MaskFeat's target (arXiv 2112.09133), which the Hiera paper's ablation tries (85.5 to 86.1 at
    800 epochs). As PySlowFast computes it: Sobel's gradients (x: left minus right, y: above minus
    below), and bin floor(9 atan2(x, y) / pi) modulo 9.

    Args:
        maps: [B, C, (T,) H, W].

    Returns:
        [B, C * 9, (T,) H/8, W/8].
    """
    maps = maps.float()
    images = maps if maps.ndim == 4 else rearrange(maps, "b c t h w -> (b t) c h w")
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    # Sobel's filters as sums of slices: a convolution would run in half precision under autocast
    rows = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    columns = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    across = rows[..., :-2] - rows[..., 2:]
    down = columns[..., :-2, :] - columns[..., 2:, :]
    magnitude = torch.stack([across, down], dim=-1).norm(dim=-1)
    bins = (torch.atan2(across, down) / math.pi * HOG_BINS).floor().long() % HOG_BINS
    votes = [
        F.avg_pool2d(magnitude.masked_fill(bins != bin_, 0.0), HOG_CELL, divisor_override=1)
        for bin_ in range(HOG_BINS)
    ]
    histograms = F.normalize(torch.stack(votes, dim=2), dim=2).flatten(1, 2)
    if maps.ndim == 4:
        return histograms
    return rearrange(histograms, "(b t) c h w -> b c t h w", b=maps.shape[0])
