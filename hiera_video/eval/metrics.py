"""Numbers from per-video probabilities, by torchmetrics."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multilabel_average_precision,
)


def accuracy(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, float]:
    """`top1`, `top5` and the mean over classes of top-1 (`mean_class`), in percent. [N, K] and [N]."""
    scores, targets = torch.from_numpy(probabilities), torch.from_numpy(labels)
    classes = scores.shape[1]

    def percent(top_k: int, average: str) -> float:
        return 100 * float(multiclass_accuracy(scores, targets, classes, top_k=min(top_k, classes), average=average))  # type: ignore[arg-type]

    return {"top1": percent(1, "micro"), "top5": percent(5, "micro"), "mean_class": percent(1, "macro")}


def mean_average_precision(probabilities: NDArray[np.float64], labels: NDArray[np.float32]) -> dict[str, float]:
    """`mAP` in percent over the classes that occur. [N, K] and [N, K] multi-hot."""
    targets = torch.from_numpy(labels).long()
    occurring = targets.sum(dim=0) > 0
    scores = torch.from_numpy(probabilities)[:, occurring]
    value = multilabel_average_precision(scores, targets[:, occurring], int(occurring.sum()), average="macro")
    return {"mAP": 100 * float(value)}


def confusion(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """[K, K]: how often class `row` was taken for class `column`."""
    scores, targets = torch.from_numpy(probabilities), torch.from_numpy(labels)
    return multiclass_confusion_matrix(scores.argmax(dim=1), targets, scores.shape[1]).numpy()
