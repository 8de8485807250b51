"""From the views of a video to one answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hiera_video.data.dataset import BrokenVideo


@dataclass(frozen=True)
class Predictions:
    """What a model said of each video, ordered by manifest row; `N` videos, `V` views, `K` classes."""

    rows: NDArray[np.int64]
    """[N] manifest row of each video that could be read."""
    logits: NDArray[np.float32]
    """[N, V, K] the model's output for every view, so that other ensembles need no second run."""
    broken: tuple[BrokenVideo, ...]
    """The videos that could not be read, with the reason."""

    def __post_init__(self) -> None:
        assert self.logits.ndim == 3 and len(self.rows) == len(self.logits), (self.rows.shape, self.logits.shape)
        assert len(set(self.rows.tolist())) == len(self.rows), "a video was counted twice"

    def probabilities(self, *, multi_label: bool = False) -> NDArray[np.float64]:
        """[N, K]: softmax (sigmoid for several labels a video) per view, averaged over the views.

        The published protocol sums; the mean has the same order and is a probability. Source: FACTS of the Kinetics
        protocol, step 5.
        """
        logits = self.logits.astype(np.float64)
        if multi_label:
            return np.asarray((1 / (1 + np.exp(-logits))).mean(axis=1))
        exponents = np.exp(logits - logits.max(axis=2, keepdims=True))
        return np.asarray((exponents / exponents.sum(axis=2, keepdims=True)).mean(axis=1))
