"""From the views of a video to one answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hiera_video.data.dataset import UnreadableVideo

VIDEOS_AT_ONCE = 1024
"""Videos whose views are turned into probabilities at once: Kinetics-400's test has a gigabyte of them in all."""


@dataclass(frozen=True)
class Predictions:
    """What a model said of each video, ordered by manifest row; `N` videos, `V` views, `K` classes."""

    rows: NDArray[np.int64]
    """[N] manifest row of each video that could be read."""
    logits: NDArray[np.float32]
    """[N, V, K] the model's output for every view, so that other ensembles need no second run."""
    broken: tuple[UnreadableVideo, ...]
    """The videos that could not be read, with the reason."""
    seconds: NDArray[np.float64] | None = None
    """[N] time that reading and scaling each video took, where it was measured."""

    def __post_init__(self) -> None:
        assert self.logits.ndim == 3 and len(self.rows) == len(self.logits), (
            self.rows.shape,
            self.logits.shape,
        )
        assert len(set(self.rows.tolist())) == len(self.rows), "a video was counted twice"

    def probabilities(
        self, *, multi_label: bool = False, views: Sequence[int] | None = None
    ) -> NDArray[np.float64]:
        """[N, K]: softmax (sigmoid for several labels a video) per view, averaged over the views (or those in `views`).

        The published protocol (PySlowFast's test meter) sums; the mean has the same order and is a probability.
        """
        chosen = slice(None) if views is None else list(views)
        answers = np.zeros((len(self.rows), self.logits.shape[2]))
        for start in range(0, len(answers), VIDEOS_AT_ONCE):
            videos = slice(start, start + VIDEOS_AT_ONCE)
            answers[videos] = _shares(
                self.logits[videos, chosen].astype(np.float64), multi_label
            ).mean(axis=1)
        return answers


def _shares(logits: NDArray[np.float64], multi_label: bool) -> NDArray[np.float64]:
    if multi_label:
        positive = np.exp(-np.abs(logits))  # never of a large number
        return np.asarray(np.where(logits >= 0, 1.0, positive) / (1 + positive))
    exponents = np.exp(logits - logits.max(axis=2, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=2, keepdims=True))
