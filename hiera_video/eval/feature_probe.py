"""Cheap probe of a masked autoencoder's features: ridge regression on held-out videos alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from hiera_video.data.manifest.record import Label
from hiera_video.models.mae import MaskedAutoencoderHiera

MAX_VIDEOS = 2000
"""Videos that are probed; of a longer list, evenly spread ones."""
MIN_VIDEOS = 20
"""Fewer labelled videos give no meaningful accuracy."""
PENALTY = 0.1
"""Ridge penalty, as a share of the mean squared length of a feature vector."""


def choose_probe_labels(labels: Sequence[Label]) -> dict[int, int]:
    """Return row → label of the videos to probe.

    Args:
        labels: Label of each video of the validation list; None where there is none.

    Returns:
        At most `MAX_VIDEOS` rows; none if labels are sets, fewer than `MIN_VIDEOS` videos have one,
        or all have the same.

    >>> choose_probe_labels([0, 1] * 2)
    {}
    """
    known = {row: label for row, label in enumerate(labels) if isinstance(label, int)}
    if len(known) < MIN_VIDEOS or len(set(known.values())) < 2:
        return {}
    rows, count = list(known), min(len(known), MAX_VIDEOS)
    return {row: known[row] for row in (rows[i * len(rows) // count] for i in range(count))}


@torch.no_grad()
def clip_features(model: MaskedAutoencoderHiera, clips: Tensor) -> Tensor:
    """Encode whole clips and average the last map over space.

    Time steps stay apart: their order is what distinguishes movements.

    Args:
        model: Its encoder is used, with all units visible.
        clips: [B, C, (T,) H, W].

    Returns:
        float32 [B, t · C].
    """
    features = model.forward_features(clips).float()
    return features.mean(dim=(-3, -2)).flatten(1)


def leave_one_out_top1(features: Tensor, labels: Tensor) -> float:
    """Return how often ridge regression on all other videos finds a video's label, in percent.

    The solution without video i follows from the one with all of them, so there is one solve.

    Args:
        features: float32 [N, D].
        labels: int64 [N].
    """
    deviation, mean = torch.std_mean(features, dim=0, correction=0)
    scaled = (features - mean) / deviation.clamp(min=1e-6)
    kernel = (scaled @ scaled.T).double()
    penalty = PENALTY * kernel.diagonal().mean().clamp(min=1e-12)
    regularised = kernel + penalty * torch.eye(len(kernel), device=kernel.device)
    targets = F.one_hot(labels).double()
    average = targets.mean(dim=0)
    # the mean is fitted too: it adds 1 / N to each entry of the matrix from targets to fitted ones
    smoother = torch.linalg.solve(regularised, kernel)
    fitted = average + smoother @ (targets - average)
    leverage = smoother.diagonal().unsqueeze(1) + 1 / len(labels)
    left_out = targets - (targets - fitted) / (1 - leverage)
    return 100 * float((left_out.argmax(dim=1) == labels).double().mean())
