"""Nearest windows of a feature store by cosine: faiss where it is installed, a matrix product elsewhere, same answers."""

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

Nearest = Callable[[Tensor, int], NDArray[np.int64]]
SPARE = 64
"""More candidates than were asked for: equal ones may come in any order, and are sorted afterwards."""
AT_ONCE = 1 << 18
"""Rows that a matrix product takes at once."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """A window of the store."""

    place: int
    """Row of `FeatureStore.clips()` and `matrix()`."""
    similarity: float
    """Cosine, in [-1, 1]."""
    window: int
    """Which of the example's windows it is nearest to."""


class SearchIndex:
    """All windows of `store`, in memory: 3 GB for a million of 768 channels. One stage, by default the last.

    Temporal features and maps are averaged over time and space. Raises `FeatureError` where the store is empty."""

    def __init__(
        self, store: FeatureStore, name: str | None = None, *, use_faiss: bool | None = None
    ) -> None:
        self.vectors = as_vectors(store.matrix(name))
        if not len(self.vectors):
            raise FeatureError(
                "the store holds no window with features; look at its broken videos with .table(), or extract again"
            )
        self.rows: NDArray[np.int64] = store.clips().column("row").to_numpy()
        if use_faiss is None:
            use_faiss = importlib.util.find_spec("faiss") is not None
        self._nearest = _by_faiss(self.vectors) if use_faiss else _by_product(self.vectors)

    def search(
        self,
        example: Tensor,
        topk: int,
        *,
        without: Collection[int] = (),
        each_video_once: bool = False,
    ) -> list[Match]:
        """The `topk` windows that are nearest to any of the example's windows [n, …], the nearest first; equal ones in
        the store's order. without: rows of the manifest that are no answer, such as the example's own."""
        queries, total = as_vectors(example), len(self.vectors)
        left_out = np.isin(self.rows, list(without))
        fetch = topk + SPARE + int(left_out.sum())
        while True:
            found = self._ranked(queries, min(fetch, total))
            kept = [match for match in found if not left_out[match.place]]
            if each_video_once:
                nearest = {int(self.rows[match.place]): match for match in reversed(kept)}
                kept = sorted(nearest.values(), key=_order)
            if len(kept) >= topk or fetch >= total:
                return kept[:topk]
            fetch *= 4

    def _ranked(self, queries: Tensor, fetch: int) -> list[Match]:
        """The `fetch` nearest windows, with similarities in float64 that no engine's rounding can reorder."""
        places = np.unique(self._nearest(queries, fetch))
        similarity = self.vectors[torch.from_numpy(places)].double() @ queries.double().T
        best, window = similarity.max(dim=1)
        found = [
            Match(place=place, similarity=value, window=at)
            for place, value, at in zip(places.tolist(), best.tolist(), window.tolist())
        ]
        return sorted(found, key=_order)[:fetch]


def as_vectors(features: Tensor) -> Tensor:
    """[N, …, C] to [N, C] float32 of length 1, averaged over what lies between."""
    vectors = features.float()
    if vectors.ndim > 2:
        vectors = vectors.flatten(1, -2).mean(dim=1)
    return F.normalize(vectors, dim=1)


def _order(match: Match) -> tuple[float, int]:
    return -match.similarity, match.place


def _by_product(vectors: Tensor) -> Nearest:
    def nearest(queries: Tensor, count: int) -> NDArray[np.int64]:
        values, places = (
            torch.empty(len(queries), 0),
            torch.empty(len(queries), 0, dtype=torch.int64),
        )
        for first in range(0, len(vectors), AT_ONCE):
            part = queries @ vectors[first : first + AT_ONCE].T
            here = torch.arange(first, first + part.shape[1]).expand(len(queries), -1)
            values, places = torch.cat([values, part], 1), torch.cat([places, here], 1)
            values, chosen = values.topk(min(count, values.shape[1]), dim=1)
            places = places.gather(1, chosen)
        return places.numpy()

    return nearest


def _by_faiss(vectors: Tensor) -> Nearest:
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors.numpy())

    def nearest(queries: Tensor, count: int) -> NDArray[np.int64]:
        _, places = index.search(queries.numpy(), count)
        found: NDArray[np.int64] = places
        return found

    return nearest
