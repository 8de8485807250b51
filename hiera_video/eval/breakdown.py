"""Where a model is right and wrong: by number of views, by class, by pair of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiera_video.eval.metrics import accuracy, mean_average_precision
from hiera_video.eval.views import Predictions

PAIRS = 20


def view_choices(clips: int, crops: int) -> list[tuple[int, int, list[int]]]:
    """(clips, crops, views) of each ensemble that is reported: 1, 2 … clips, evenly spread, with the middle crop alone
    and with all. Views are numbered clip by clip.

    >>> view_choices(2, 3)
    [(1, 1, [1]), (1, 3, [0, 1, 2]), (2, 1, [1, 4]), (2, 3, [0, 1, 2, 3, 4, 5])]
    """
    found = []
    for count in range(1, clips + 1):
        chosen = _spread(clips, count)
        found.append((count, 1, [clip * crops + crops // 2 for clip in chosen]))
        if crops > 1:
            found.append(
                (count, crops, [clip * crops + crop for clip in chosen for crop in range(crops)])
            )
    return found


def _spread(clips: int, count: int) -> list[int]:
    """`count` of `clips`, evenly: the middle one; the first and the last; …"""
    if count == 1:
        return [(clips - 1) // 2]
    return [(clips - 1) * place // (count - 1) for place in range(count)]


def by_views(
    predictions: Predictions, labels: NDArray[Any], clips: int, crops: int
) -> list[dict[str, Any]]:
    """The accuracy of each of `view_choices`; `labels` [N], or [N, K] multi-hot."""
    several = labels.ndim == 2
    rows = []
    for count, used, views in view_choices(clips, crops):
        shares = predictions.probabilities(multi_label=several, views=views)
        numbers = mean_average_precision(shares, labels) if several else accuracy(shares, labels)
        rows.append({"clips": count, "crops": used, "views": len(views), **numbers})
    return rows


def by_class(counts: NDArray[np.int64], names: Sequence[str]) -> list[dict[str, Any]]:
    """One row a class that occurs or was answered: recall and precision in percent, None where undefined; `counts`: the
    confusion matrix [label, answer]."""
    rows = []
    for index, name in enumerate(names):
        videos, answers, right = (
            int(value)
            for value in (counts[index].sum(), counts[:, index].sum(), counts[index, index])
        )
        if not videos and not answers:
            continue
        rows.append(
            {
                "class": index,
                "name": name,
                "videos": videos,
                "recall": 100 * right / videos if videos else None,
                "precision": 100 * right / answers if answers else None,
            }
        )
    return rows


def average_precisions(
    shares: NDArray[np.float64], hot: NDArray[np.float32], names: Sequence[str]
) -> list[dict[str, Any]]:
    """One row a class that occurs, for several labels a video: its average precision in percent."""
    return [
        {
            "class": index,
            "name": names[index],
            "videos": int(hot[:, index].sum()),
            "average_precision": mean_average_precision(shares[:, [index]], hot[:, [index]])["mAP"],
        }
        for index in np.flatnonzero(hot.sum(axis=0)).tolist()
    ]


def confusion_pairs(
    counts: NDArray[np.int64], names: Sequence[str], limit: int = PAIRS
) -> list[dict[str, Any]]:
    """The most frequent mistakes: `count` videos of `label` (that share of them, in percent) were taken for `answer`."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    totals = counts.sum(axis=1)
    places = [
        (-int(wrong[row, column]), int(row), int(column)) for row, column in zip(*wrong.nonzero())
    ]
    return [
        {
            "label": names[row],
            "answer": names[column],
            "count": -count,
            "share": 100 * -count / int(totals[row]),
        }
        for count, row, column in sorted(places)[:limit]
    ]
