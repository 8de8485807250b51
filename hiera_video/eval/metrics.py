"""Metrics of per-video probabilities, computed by torchmetrics.

It is imported where it is used: with scipy it takes two seconds, which no start should wait for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

Z = 1.959963984540054
"""97.5th percentile of the normal distribution."""
RESAMPLES = 2000
"""Bootstrap samples of an interval."""


def accuracy(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, float]:
    """Return top-1, top-5 and mean-class accuracy in percent.

    Args:
        probabilities: [N, K]; logits have the same accuracy.
        labels: [N].

    Returns:
        `top1`, `top5` and `mean_class`, which is the mean recall of the classes that occur.
    """
    from torchmetrics.functional.classification import multiclass_accuracy

    scores, targets = torch.from_numpy(probabilities), torch.from_numpy(labels)
    classes = scores.shape[1]
    # torchmetrics' macro average counts a class without videos as 0 % once it is predicted
    occurs = targets.bincount(minlength=classes) > 0
    recall = multiclass_accuracy(scores, targets, classes, average="none")[occurs]
    top5 = min(5, classes)
    fractions = {
        "top1": multiclass_accuracy(scores, targets, classes, average="micro"),
        "top5": multiclass_accuracy(scores, targets, classes, top_k=top5, average="micro"),
        "mean_class": recall.mean(),
    }
    # torchmetrics computes in float32, so further digits would be noise
    return {name: round(100 * float(value), 4) for name, value in fractions.items()}


def mean_average_precision(
    probabilities: NDArray[np.float64], labels: NDArray[np.float32]
) -> dict[str, float]:
    """Return `mAP` in percent over the classes that occur; 0 if none does.

    Args:
        probabilities: [N, K].
        labels: [N, K] multi-hot.
    """
    from torchmetrics.functional.classification import (
        binary_average_precision,
        multilabel_average_precision,
    )

    targets = torch.from_numpy(labels).long()
    occurs = targets.sum(dim=0) > 0
    scores, targets = torch.from_numpy(probabilities)[:, occurs], targets[:, occurs]
    if not occurs.any():
        return {"mAP": 0.0}
    if scores.shape[1] == 1:  # torchmetrics' multilabel function takes two classes or more
        value = binary_average_precision(scores[:, 0], targets[:, 0])
    else:
        value = multilabel_average_precision(scores, targets, scores.shape[1], average="macro")
    return {"mAP": round(100 * float(value), 4)}


def cross_entropy(probabilities: NDArray[np.float64], labels: NDArray[Any]) -> float:
    """Return the mean cross-entropy; for multi-label, the mean binary cross-entropy.

    Args:
        probabilities: [N, K].
        labels: [N], or [N, K] multi-hot.
    """
    inputs, targets = torch.from_numpy(probabilities), torch.from_numpy(labels)
    if targets.ndim == 2:
        return float(F.binary_cross_entropy(inputs, targets.double()))
    return float(F.nll_loss(inputs.clamp(min=torch.finfo(inputs.dtype).tiny).log(), targets))


def confusion(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the confusion matrix [K, K]: videos by label (row) and prediction (column)."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    scores, targets = torch.from_numpy(probabilities), torch.from_numpy(labels)
    return multiclass_confusion_matrix(scores.argmax(dim=1), targets, scores.shape[1]).numpy()


def intervals(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> dict[str, tuple[float, float]]:
    """Return 95 % intervals over videos, in percent, of the numbers of `accuracy`.

    Shares of videos have Wilson's interval, which is not empty where all videos are right. The mean
    over classes combines their Wilson intervals (Newcombe's square-and-add method).
    """
    rank = (probabilities > probabilities[np.arange(len(labels)), labels][:, None]).sum(axis=1)
    top1 = probabilities.argmax(axis=1) == labels
    classes = probabilities.shape[1]
    videos = np.bincount(labels, minlength=classes)
    correct = np.bincount(labels[top1], minlength=classes)[videos > 0]
    fractions = {
        "top1": wilson(int(top1.sum()), len(labels)),
        "top5": wilson(int((rank < 5).sum()), len(labels)),
        "mean_class": _mean_interval(correct, videos[videos > 0]),
    }
    return {
        name: (round(100 * low, 4), round(100 * high, 4)) for name, (low, high) in fractions.items()
    }


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share.

    >>> low, high = wilson(12, 12)
    >>> round(low, 4), high
    (0.7575, 1.0)
    """
    share, square = successes / count, Z**2 / count
    centre = share + square / 2
    half = math.sqrt(square * (share * (1 - share) + square / 4))
    low, high = (centre - half) / (1 + square), (centre + half) / (1 + square)
    # exact at the ends, where rounding would leave 1e-17
    return (low if successes else 0.0), (high if successes < count else 1.0)


def _mean_interval(successes: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of independent shares."""
    shares = successes / counts
    bounds = np.array([wilson(s, n) for s, n in zip(successes.tolist(), counts.tolist())])
    below, above = np.sqrt(((bounds - shares[:, None]) ** 2).sum(axis=0)) / len(shares)
    return float(shares.mean() - below), float(shares.mean() + above)


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float], count: int, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentiles of a statistic over bootstrap samples.

    Args:
        statistic: Maps indices [count], drawn with replacement, to a number; NaN leaves it out.
        count: Size of the data set and of each sample.
        resamples: Number of samples.
    """
    generator = np.random.default_rng(0)
    values = [statistic(generator.integers(0, count, count)) for _ in range(resamples)]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return round(float(low), 6), round(float(high), 6)
