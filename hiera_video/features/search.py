"""Find the nearest windows of a feature store by cosine similarity.

faiss computes the candidates where it is installed and a matrix product elsewhere; the results are
the same.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hiera_video.errors import FeatureError
from hiera_video.features.store import FeatureStore

FindNearest = Callable[[Tensor, int], NDArray[np.int64]]
"""Maps queries [n, C] and a count k to the indices [n, k] of the nearest vectors."""
EXTRA_CANDIDATES = 64
"""Candidates beyond those requested: engines return equal ones in any order, and sorting by index
needs all of them."""
ROWS_PER_PRODUCT = 1 << 18
"""Vectors in one matrix product."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """A window of the store that is near an example."""

    index: int
    """Row of `FeatureStore.clips()` and of `matrix()`."""
    similarity: float
    """Cosine similarity, in [-1, 1]."""
    window: int
    """Index of the example's window that is nearest."""


class SearchIndex:
    """An index of all windows of a store, for cosine search.

    The vectors are held in memory: 3 GB for a million windows with 768 channels. Temporal features
    and maps are averaged over time and space.

    Args:
        store: The features to search.
        name: Stage, such as `stage4`; None: the last of the extracted stages.
        use_faiss: Search with faiss; None: if it is installed.

    Raises:
        FeatureError: The store has no features, or not the named stage.
    """

    def __init__(
        self, store: FeatureStore, name: str | None = None, *, use_faiss: bool | None = None
    ) -> None:
        self.vectors = unit_vectors(store.matrix(name))
        """float32 [N, C] of length 1, in the order of `store.clips()`."""
        if not len(self.vectors):
            raise FeatureError(
                "the store has no windows with features; find its unreadable videos with .table(), "
                "or extract again"
            )
        self.rows: NDArray[np.int64] = store.clips().column("row").to_numpy()
        """[N] manifest row of each window's video."""
        if use_faiss is None:
            use_faiss = importlib.util.find_spec("faiss") is not None
        build = _faiss_search if use_faiss else _product_search
        self._find_nearest = build(self.vectors)

    def search(
        self,
        example: Tensor,
        topk: int,
        *,
        exclude_rows: Collection[int] = (),
        each_video_once: bool = False,
    ) -> list[Match]:
        """Return the windows that are nearest to any window of an example.

        Args:
            example: Features of the example's windows, [n, …] as `VideoFeatures.features`.
            topk: Number of windows to return, at most.
            exclude_rows: Manifest rows of videos to leave out, such as the example's own.
            each_video_once: Return only the nearest window of each video.

        Returns:
            The windows by descending similarity; equal ones in the order of the store.
        """
        queries, total = unit_vectors(example), len(self.vectors)
        excluded = np.isin(self.rows, list(exclude_rows))
        count = topk + EXTRA_CANDIDATES + int(excluded.sum())
        while True:
            ranked = self._rank(queries, min(count, total))
            matches = [match for match in ranked if not excluded[match.index]]
            if each_video_once:
                nearest = {int(self.rows[match.index]): match for match in reversed(matches)}
                matches = sorted(nearest.values(), key=_order)
            if len(matches) >= topk or count >= total:
                return matches[:topk]
            count *= 4

    def _rank(self, queries: Tensor, count: int) -> list[Match]:
        """Return the `count` nearest windows, with similarities in float64.

        In float64, the rounding of an engine does not change their order.
        """
        indices = np.unique(self._find_nearest(queries, count))
        similarity = self.vectors[torch.from_numpy(indices)].double() @ queries.double().T
        best, window = similarity.max(dim=1)
        matches = [
            Match(index=index, similarity=value, window=nearest)
            for index, value, nearest in zip(indices.tolist(), best.tolist(), window.tolist())
        ]
        return sorted(matches, key=_order)[:count]


def unit_vectors(features: Tensor) -> Tensor:
    """Average features [N, …, C] over the middle dimensions; return float32 [N, C] of length 1."""
    vectors = features.float()
    if vectors.ndim > 2:
        vectors = vectors.flatten(1, -2).mean(dim=1)
    return F.normalize(vectors, dim=1)


def _order(match: Match) -> tuple[float, int]:
    return -match.similarity, match.index


def _product_search(vectors: Tensor) -> FindNearest:
    def find_nearest(queries: Tensor, count: int) -> NDArray[np.int64]:
        values = torch.empty(len(queries), 0)
        indices = torch.empty(len(queries), 0, dtype=torch.int64)
        for first in range(0, len(vectors), ROWS_PER_PRODUCT):
            part = queries @ vectors[first : first + ROWS_PER_PRODUCT].T
            of_part = torch.arange(first, first + part.shape[1]).expand(len(queries), -1)
            values = torch.cat([values, part], 1)
            indices = torch.cat([indices, of_part], 1)
            values, chosen = values.topk(min(count, values.shape[1]), dim=1)
            indices = indices.gather(1, chosen)
        return indices.numpy()

    return find_nearest


def _faiss_search(vectors: Tensor) -> FindNearest:
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors.numpy())

    def find_nearest(queries: Tensor, count: int) -> NDArray[np.int64]:
        _, found = index.search(queries.numpy(), count)
        indices: NDArray[np.int64] = found
        return indices

    return find_nearest
