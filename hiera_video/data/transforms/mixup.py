"""Soft targets, mixup and cutmix over a batch of clips (torchvision's refuse five dimensions).

A sample's partner is the one at the mirrored position of the batch, and one λ serves the whole
batch. So each rank can mix its part of a global batch alone, if its part holds both partners and
its generator is in the same state.
"""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

CUTMIX_PROBABILITY = 0.5
"""Probability of cutmix if mixup is on as well."""


def soft_targets(labels: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """Return label-smoothed targets, float32 [B, K].

    Args:
        labels: Class indices int64 [B], or multi-hot float [B, K].
        num_classes: K.
        smoothing: Mass taken from the labels and spread over all K classes.
    """
    if labels.ndim == 1:
        labels = torch.nn.functional.one_hot(labels, num_classes)
    return labels.float() * (1 - smoothing) + smoothing / num_classes


def mix(
    clips: Tensor, targets: Tensor, *, mixup: float, cutmix: float, generator: random.Random
) -> tuple[Tensor, Tensor]:
    """Mix clips and targets with those of the reversed batch.

    Args:
        clips: [B, 3, T, H, W].
        targets: [B, K].
        mixup: Alpha of the Beta distribution of mixup's λ; 0 switches mixup off.
        cutmix: The same for cutmix. Its λ is corrected for the part of the box outside the frame.
        generator: Source of the random numbers.

    Returns:
        The mixed clips and targets.
    """
    use_cutmix = cutmix > 0 and (mixup <= 0 or generator.random() < CUTMIX_PROBABILITY)
    alpha = cutmix if use_cutmix else mixup
    if alpha <= 0:
        return clips, targets
    share = generator.betavariate(alpha, alpha)
    if use_cutmix:
        height, width = clips.shape[-2:]
        top, bottom, left, right = cutmix_box(height, width, share=share, generator=generator)
        clips = clips.clone()
        clips[..., top:bottom, left:right] = clips[..., top:bottom, left:right].flip(0)
        share = 1 - (bottom - top) * (right - left) / (height * width)
    else:
        clips = clips * share + clips.flip(0) * (1 - share)
    return clips, targets * share + targets.flip(0) * (1 - share)


def cutmix_box(
    height: int, width: int, *, share: float, generator: random.Random
) -> tuple[int, int, int, int]:
    """Draw the box that the partner fills: `1 - share` of the area, clipped at the border.

    Returns:
        (top, bottom, left, right).
    """
    side = math.sqrt(1 - share)
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    y, x = generator.randrange(height), generator.randrange(width)
    return (
        max(y - half_height, 0),
        min(y + half_height, height),
        max(x - half_width, 0),
        min(x + half_width, width),
    )
