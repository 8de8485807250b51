"""Results by number of views, by class, and by pair of confused classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiera_video.eval.metrics import accuracy, mean_average_precision
from hiera_video.eval.views import Predictions

PAIRS = 20


def view_subsets(clips: int, crops: int) -> list[tuple[int, int, list[int]]]:
    """Return the subsets of a test's views whose accuracy is reported.

    For each number of clips, evenly spread over the video, there is a subset with the middle crop
    of each and one with all crops. The views of a video are ordered clip by clip.

    Returns:
        (number of clips, number of crops, indices of the views) of each subset.

    >>> view_subsets(2, 3)
    [(1, 1, [1]), (1, 3, [0, 1, 2]), (2, 1, [1, 4]), (2, 3, [0, 1, 2, 3, 4, 5])]
    """
    subsets = []
    for count in range(1, clips + 1):
        chosen = _evenly_spread(clips, count)
        subsets.append((count, 1, [clip * crops + crops // 2 for clip in chosen]))
        if crops > 1:
            views = [clip * crops + crop for clip in chosen for crop in range(crops)]
            subsets.append((count, crops, views))
    return subsets


def _evenly_spread(clips: int, count: int) -> list[int]:
    if count == 1:
        return [(clips - 1) // 2]
    return [(clips - 1) * index // (count - 1) for index in range(count)]


def by_views(
    predictions: Predictions, labels: NDArray[Any], clips: int, crops: int
) -> list[dict[str, Any]]:
    """Return the accuracy (multi-label: mAP) for each of `view_subsets`.

    Args:
        predictions: Of `clips` × `crops` views per video.
        labels: [N], or [N, K] multi-hot.
        clips: Clips of a video.
        crops: Crops of a clip.
    """
    multi_label = labels.ndim == 2
    metric = mean_average_precision if multi_label else accuracy
    rows = []
    for count, crop_count, views in view_subsets(clips, crops):
        probabilities = predictions.probabilities(multi_label=multi_label, views=views)
        metrics = metric(probabilities, labels)
        rows.append({"clips": count, "crops": crop_count, "views": len(views), **metrics})
    return rows


def by_class(counts: NDArray[np.int64], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return recall and precision of each class that occurs or was predicted.

    Args:
        counts: Confusion matrix [label, prediction].
        names: Name of each class.

    Returns:
        A row for each class; recall and precision in percent, None where undefined.
    """
    rows = []
    for index, name in enumerate(names):
        videos, predicted = int(counts[index].sum()), int(counts[:, index].sum())
        correct = int(counts[index, index])
        if not videos and not predicted:
            continue
        rows.append(
            {
                "class": index,
                "name": name,
                "videos": videos,
                "recall": 100 * correct / videos if videos else None,
                "precision": 100 * correct / predicted if predicted else None,
            }
        )
    return rows


def average_precisions(
    probabilities: NDArray[np.float64], labels: NDArray[np.float32], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the average precision, in percent, of each class that occurs.

    Args:
        probabilities: [N, K].
        labels: [N, K] multi-hot.
        names: Name of each class.
    """
    rows = []
    for index in np.flatnonzero(labels.sum(axis=0)).tolist():
        column = [index]
        metrics = mean_average_precision(probabilities[:, column], labels[:, column])
        rows.append(
            {
                "class": index,
                "name": names[index],
                "videos": int(labels[:, index].sum()),
                "average_precision": metrics["mAP"],
            }
        )
    return rows


def confusion_pairs(
    counts: NDArray[np.int64], names: Sequence[str], limit: int = PAIRS
) -> list[dict[str, Any]]:
    """Return the most frequent mistakes, as pairs of label and prediction.

    Args:
        counts: Confusion matrix [label, prediction].
        names: Name of each class.
        limit: Number of pairs.

    Returns:
        For each pair the names of `label` and `answer` (the prediction), the `count` of videos, and
        its `share` of the label's videos in percent.
    """
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    videos = counts.sum(axis=1)
    pairs = [(-int(wrong[row, column]), row, column) for row, column in np.argwhere(wrong).tolist()]
    return [
        {
            "label": names[row],
            "answer": names[column],
            "count": -count,
            "share": 100 * -count / int(videos[row]),
        }
        for count, row, column in sorted(pairs)[:limit]
    ]
