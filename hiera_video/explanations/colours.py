"""Features as colours: the three principal components of a map as red, green and blue."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hiera_video.utils.checks import require

LOW, HIGH = 0.02, 0.98
"""Quantiles of a component that are drawn as 0 and 1."""


@dataclass(frozen=True, kw_only=True)
class ColourBasis:
    """Principal components of features, and the range of each that colours cover.

    Colours of clips are comparable if one basis made them.
    """

    mean: Tensor
    """[C]"""
    axes: Tensor
    """[C, 3] unit vectors, by falling variance; the largest entry of each is above 0."""
    low: Tensor
    """[3] value of each component that is drawn as 0."""
    high: Tensor
    """[3] value that is drawn as 1."""
    explained: float
    """Share of the variance that the three components have."""

    def colours(self, features: Tensor) -> Tensor:
        """Return the colours [..., 3] in [0, 1] of features [..., C]."""
        values = (features.cpu().double() - self.mean) @ self.axes
        # a component without variance is grey
        span = (self.high - self.low).clamp(min=1e-12)
        return ((values - self.low) / span).where(self.high > self.low, 0.5).clamp(0, 1).float()


def fit_colours(features: Tensor) -> ColourBasis:
    """Fit a basis to features [N, C], of the places of a clip or of a store's windows.

    Raises:
        ConfigError: There are fewer than four features, or fewer than three channels.
    """
    count, channels = features.shape
    require(
        count >= 4 and channels >= 3,
        f"{count} features of {channels} channels: three components need 4 features or more, of 3 "
        "channels or more",
    )
    rows = features.cpu().double()
    mean = rows.mean(dim=0)
    variances, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / count)
    axes = vectors[:, -3:].flip(1)
    axes = axes * axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
    values = (rows - mean) @ axes
    ordered = values.sort(dim=0).values  # torch.quantile refuses more than 16 million values
    last = count - 1
    return ColourBasis(
        mean=mean,
        axes=axes,
        low=ordered[round(LOW * last)],
        high=ordered[round(HIGH * last)],
        explained=float(variances[-3:].sum() / variances.sum().clamp(min=1e-30)),
    )
