"""Unit occlusion: how a logit changes with the mask units that the model is shown.

Hiera drops mask units before its first block, so they are removed rather than painted over. Random
sets of units are hidden, and a unit's value is the mean logit over the sets that show it less that
over the sets that hide it (RISE, arXiv 1806.07421, without its grey patches). As every set shows
the same number of units, values are relative to the other units.

A classifier was trained on whole clips: what it answers for a part of one is beyond its training.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hiera_video.explanations.evidence import require_classifier
from hiera_video.models.masking import random_keep
from hiera_video.utils.checks import require


@dataclass(frozen=True, kw_only=True)
class UnitOcclusion:
    """Effect of each mask unit of a clip on a logit."""

    maps: Tensor
    """[(t,) h, w] float32 on the grid of mask units, in logits: above 0 if showing the unit raises
    the logit."""
    standard_error: Tensor
    """[(t,) h, w] standard error of `maps`, which falls with the root of the number of draws."""


@torch.no_grad()
def unit_occlusion(
    model: nn.Module,
    clip: Tensor,
    target: int,
    *,
    draws: int = 512,
    hidden: float = 0.5,
    seed: int = 0,
    batch_size: int = 16,
) -> UnitOcclusion:
    """Return the effect of each mask unit on the logit of a class.

    Args:
        model: A Hiera classifier in evaluation mode.
        clip: [C, T, H, W], or [C, H, W] for an image model; normalised.
        target: Index of the class.
        draws: Random sets of hidden units; each costs a forward pass of the shown units.
        hidden: Share of units that a set hides.
        seed: Seed of the sets.
        batch_size: Sets in a batch.

    Raises:
        ConfigError: The model is not a Hiera classifier, the share leaves nothing shown or hidden,
            or the draws are too few to show and hide each unit twice.
    """
    model = require_classifier(model)
    units = model.config.num_units
    require(draws >= 1, f"draws={draws}: must be 1 or more")
    keep = random_keep(draws, units, hidden, torch.Generator().manual_seed(seed))
    shown = keep.sum(dim=0)
    require(
        bool(((shown >= 2) & (draws - shown >= 2)).all()),
        f"draws={draws}: too few to show and hide each of {units} units twice; raise draws",
    )
    logits = []
    for part in torch.split(keep, batch_size):
        clips = clip.unsqueeze(0).expand(len(part), *clip.shape)
        features = model.encode(clips, keep=part.to(clip.device))[-1]
        logits.append(model.forward_head(features)[:, target].double().cpu())
    maps, error = difference_of_means(torch.cat(logits), keep)
    grid = model.config.unit_grid
    return UnitOcclusion(maps=maps.view(grid), standard_error=error.view(grid))


def difference_of_means(values: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Return each unit's mean value when shown less that when hidden, and its standard error.

    Args:
        values: [N] float64.
        keep: [N, units] bool, True = shown; each unit is shown and hidden twice or more.
    """
    means, variances = [], []
    for chosen in (keep, ~keep):
        weight = chosen.double()
        count = weight.sum(dim=0)
        mean = values @ weight / count
        squares = ((values.unsqueeze(1) - mean) ** 2 * weight).sum(dim=0)
        means.append(mean)
        variances.append(squares / (count - 1) / count)
    shown, hidden = means
    return (shown - hidden).float(), sum(variances, torch.zeros(())).sqrt().float()
