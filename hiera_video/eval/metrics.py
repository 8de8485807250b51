"""Metrics of per-video probabilities, computed by torchmetrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torchmetrics.functional.classification import (
    binary_average_precision,
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multilabel_average_precision,
)

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
    """Return `mAP` in percent over the classes that occur.

    Args:
        probabilities: [N, K].
        labels: [N, K] multi-hot.
    """
    targets = torch.from_numpy(labels).long()
    occurs = targets.sum(dim=0) > 0
    scores, targets = torch.from_numpy(probabilities)[:, occurs], targets[:, occurs]
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
    scores, targets = torch.from_numpy(probabilities), torch.from_numpy(labels)
    return multiclass_confusion_matrix(scores.argmax(dim=1), targets, scores.shape[1]).numpy()


def intervals(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> dict[str, tuple[float, float]]:
    """Return 95 % bootstrap intervals over videos, in percent, of the numbers of `accuracy`.

    The random draws have a fixed seed, so the intervals are reproducible.
    """
    rank = (probabilities > probabilities[np.arange(len(labels)), labels][:, None]).sum(axis=1)
    top1 = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    top5 = (rank < 5).astype(np.float64)
    classes = probabilities.shape[1]

    def mean_class(sample: NDArray[np.int64]) -> float:
        videos = np.bincount(labels[sample], minlength=classes)
        correct = np.bincount(labels[sample], weights=top1[sample], minlength=classes)
        return float((correct[videos > 0] / videos[videos > 0]).mean())

    fractions = {
        "top1": bootstrap(lambda sample: top1[sample].mean(), len(labels)),
        "top5": bootstrap(lambda sample: top5[sample].mean(), len(labels)),
        "mean_class": bootstrap(mean_class, len(labels)),
    }
    return {
        name: (round(100 * low, 4), round(100 * high, 4)) for name, (low, high) in fractions.items()
    }


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float], count: int, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentiles of a statistic over bootstrap samples.

    Args:
        statistic: Maps indices [count], drawn with replacement, to a number.
        count: Size of the data set and of each sample.
        resamples: Number of samples.
    """
    generator = np.random.default_rng(0)
    values = [statistic(generator.integers(0, count, count)) for _ in range(resamples)]
    low, high = np.percentile(values, [2.5, 97.5])
    return round(float(low), 6), round(float(high), 6)
