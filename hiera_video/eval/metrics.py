"""Numbers from per-video probabilities, by torchmetrics."""

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
    """`top1`, `top5` and the mean of top-1 over the classes that occur (`mean_class`), in percent. [N, K] and [N]."""
    scores, targets = torch.from_numpy(probabilities), torch.from_numpy(labels)
    classes = scores.shape[1]
    # torchmetrics' macro average counts a class without a video as 0 % as soon as something is taken for it
    by_class = multiclass_accuracy(scores, targets, classes, average="none")[
        targets.bincount(minlength=classes) > 0
    ]
    shares = {
        "top1": multiclass_accuracy(scores, targets, classes, average="micro"),
        "top5": multiclass_accuracy(
            scores, targets, classes, top_k=min(5, classes), average="micro"
        ),
        "mean_class": by_class.mean(),
    }
    return {
        name: round(100 * float(share), 4) for name, share in shares.items()
    }  # they are float32


def mean_average_precision(
    probabilities: NDArray[np.float64], labels: NDArray[np.float32]
) -> dict[str, float]:
    """`mAP` in percent over the classes that occur. [N, K] and [N, K] multi-hot."""
    targets = torch.from_numpy(labels).long()
    occurring = targets.sum(dim=0) > 0
    scores, targets = torch.from_numpy(probabilities)[:, occurring], targets[:, occurring]
    if scores.shape[1] == 1:  # torchmetrics does not count one label as several
        value = binary_average_precision(scores[:, 0], targets[:, 0])
    else:
        value = multilabel_average_precision(scores, targets, scores.shape[1], average="macro")
    return {"mAP": round(100 * float(value), 4)}


def cross_entropy(probabilities: NDArray[np.float64], labels: NDArray[Any]) -> float:
    """Mean over videos of -log of what the label [N] got, of [N, K]; of several labels, [N, K] multi-hot, the binary one."""
    shares, targets = torch.from_numpy(probabilities), torch.from_numpy(labels)
    if targets.ndim == 2:
        return float(F.binary_cross_entropy(shares, targets.double()))
    return float(F.nll_loss(shares.clamp(min=torch.finfo(shares.dtype).tiny).log(), targets))


def confusion(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """[K, K]: how often class `row` was taken for class `column`."""
    scores, targets = torch.from_numpy(probabilities), torch.from_numpy(labels)
    return multiclass_confusion_matrix(scores.argmax(dim=1), targets, scores.shape[1]).numpy()


def intervals(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> dict[str, tuple[float, float]]:
    """95 % percentile bootstrap intervals over videos of `accuracy`'s numbers, in percent; the same in every run."""
    rank = (probabilities > probabilities[np.arange(len(labels)), labels][:, None]).sum(axis=1)
    top1 = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    top5 = (rank < 5).astype(np.float64)
    classes = probabilities.shape[1]

    def mean_class(chosen: NDArray[np.int64]) -> float:
        videos = np.bincount(labels[chosen], minlength=classes)
        right = np.bincount(labels[chosen], weights=top1[chosen], minlength=classes)
        return float((right[videos > 0] / videos[videos > 0]).mean())

    found = {
        "top1": bootstrap(lambda chosen: top1[chosen].mean(), len(labels)),
        "top5": bootstrap(lambda chosen: top5[chosen].mean(), len(labels)),
        "mean_class": bootstrap(mean_class, len(labels)),
    }
    return {
        name: (round(100 * low, 4), round(100 * high, 4)) for name, (low, high) in found.items()
    }


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float], count: int, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Percentiles 2.5 and 97.5 of `statistic(indices)` over `resamples` draws of `count` indices with replacement."""
    generator = np.random.default_rng(0)
    values = [statistic(generator.integers(0, count, count)) for _ in range(resamples)]
    low, high = np.percentile(values, [2.5, 97.5])
    return round(float(low), 6), round(float(high), 6)
