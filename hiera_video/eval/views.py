"""Predictions for the views of each video, averaged into one prediction a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hiera_video.data.dataset import UnreadableVideo

CHUNK = 1024
"""Videos whose probabilities are computed at once: Kinetics-400's test views fill a gigabyte."""


@dataclass(frozen=True)
class Predictions:
    """A model's logits for every view of N videos, in manifest order."""

    rows: NDArray[np.int64]
    """[N] manifest row of each readable video."""
    logits: NDArray[np.float32]
    """[N, V, K] logits of each view, so that other ensembles do not need another run."""
    unreadable: tuple[UnreadableVideo, ...]
    """The unreadable videos, with the reason."""
    seconds: NDArray[np.float64] | None = None
    """[N] seconds that decoding and scaling each video took, if measured."""

    def __post_init__(self) -> None:
        assert self.logits.ndim == 3 and len(self.rows) == len(self.logits), (
            self.rows.shape,
            self.logits.shape,
        )
        assert len(set(self.rows.tolist())) == len(self.rows), "a video was counted twice"

    def probabilities(
        self, *, multi_label: bool = False, views: Sequence[int] | None = None
    ) -> NDArray[np.float64]:
        """Return the class probabilities [N, K], averaged over the views.

        The published protocol (PySlowFast's test meter) sums; the mean ranks classes equally and is
        a probability.

        Args:
            multi_label: Apply a sigmoid to each logit instead of a softmax over the classes.
            views: Indices of the views to average; all by default.
        """
        chosen = slice(None) if views is None else list(views)
        activation = _sigmoid if multi_label else _softmax
        probabilities = np.zeros((len(self.rows), self.logits.shape[2]))
        for start in range(0, len(probabilities), CHUNK):
            videos = slice(start, start + CHUNK)
            logits = self.logits[videos, chosen].astype(np.float64)
            probabilities[videos] = activation(logits).mean(axis=1)
        return probabilities


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    decayed = np.exp(-np.abs(logits))  # cannot overflow
    return np.asarray(np.where(logits >= 0, 1.0, decayed) / (1 + decayed))


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    exponents = np.exp(logits - logits.max(axis=2, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=2, keepdims=True))
