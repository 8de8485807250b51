"""Multi-view evaluation: the same code validates while training and tests afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from hiera_video.data.dataset import BrokenVideo, TestViews, VideoViews
from hiera_video.data.loader import test_loader
from hiera_video.data.manifest import Manifest
from hiera_video.errors import ManifestError
from hiera_video.eval.metrics import accuracy, mean_average_precision
from hiera_video.eval.views import Predictions
from hiera_video.runtime.distributed import World


@torch.inference_mode()
def predict_views(
    model: nn.Module, dataset: TestViews, *, batch_size: int, workers: int, world: World, progress: bool = False
) -> Predictions:
    """Run `model` over every view of every video, each video decoded once, sharded over the ranks.

    Every batch has exactly `batch_size` views (the last is padded with its own first view), so that neither the number
    of ranks nor a video's neighbours change its numbers.
    """
    model.eval()
    rows = list(range(len(dataset)))[world.rank :: world.size]
    broken: list[BrokenVideo] = []
    counts: list[tuple[int, int]] = []

    def views() -> Iterator[Tensor]:
        videos = test_loader(dataset, workers=workers, rows=rows)
        for video in tqdm(videos, total=len(rows), unit="video", disable=not (progress and world.is_main)):
            if isinstance(video, BrokenVideo):
                broken.append(video)
            else:
                assert isinstance(video, VideoViews)
                counts.append((video.row, len(video.views)))
                yield from video.views

    logits: list[Tensor] = []
    for views_of_batch, real in _fixed_batches(views(), batch_size):
        logits.append(model(views_of_batch.to(world.device)).float().cpu()[:real])
    by_view = torch.cat(logits) if logits else torch.zeros(0, 0)
    by_video = torch.split(by_view, [count for _, count in counts])
    parts = world.gather(([row for row, _ in counts], [part.numpy() for part in by_video], broken))
    answers = {row: part for found, values, _ in parts for row, part in zip(found, values)}
    ordered = sorted(answers)
    return Predictions(
        rows=np.array(ordered, dtype=np.int64),
        logits=np.stack([answers[row] for row in ordered]) if ordered else np.zeros((0, 0, 0), np.float32),
        broken=tuple(sorted((item for *_, items in parts for item in items), key=lambda item: item.row)),
    )


def _fixed_batches(items: Iterator[Tensor], size: int) -> Iterator[tuple[Tensor, int]]:
    """Batches of exactly `size` items, and how many of them are real."""
    batch: list[Tensor] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield torch.stack(batch), size
            batch = []
    if batch:
        yield torch.stack(batch + batch[:1] * (size - len(batch))), len(batch)


def score(predictions: Predictions, manifest: Manifest) -> dict[str, float]:
    """Accuracy (or mAP) over the videos that could be read, and how many of how many those were."""
    numbers: dict[str, float] = {}
    if len(predictions.rows):
        probabilities = predictions.probabilities(multi_label=manifest.multi_label)
        if manifest.multi_label:
            numbers = mean_average_precision(
                probabilities, multi_hot(manifest, predictions.rows, probabilities.shape[1])
            )
        else:
            numbers = accuracy(probabilities, single_labels(manifest, predictions.rows))
    return {**numbers, "evaluated": len(predictions.rows), "of": len(manifest.records)}


def single_labels(manifest: Manifest, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """[N] labels of manifest rows."""
    return np.array([manifest.records[row].label for row in rows], dtype=np.int64)


def multi_hot(manifest: Manifest, rows: Sequence[int] | NDArray[np.int64], num_classes: int) -> NDArray[np.float32]:
    """[N, K] labels of manifest rows, 1 for each label of a video."""
    hot = np.zeros((len(rows), num_classes), np.float32)
    for place, row in enumerate(rows):
        hot[place, manifest.records[row].label] = 1
    return hot


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """The evaluator of `classify`: one number a metric, best by top-1 (mAP for several labels a video)."""

    dataset: TestViews
    manifest: Manifest
    batch_size: int
    workers: int
    world: World

    @property
    def score(self) -> str:
        """The number that chooses the best checkpoint."""
        return "mAP" if self.manifest.multi_label else "top1"

    @property
    def higher_is_better(self) -> bool:
        """Accuracies are."""
        return True

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Evaluate `model`. Raises `ManifestError` where no video at all can be read."""
        found = predict_views(model, self.dataset, batch_size=self.batch_size, workers=self.workers, world=self.world)
        if not len(found.rows):
            first = found.broken[0].message if found.broken else "the list is empty"
            raise ManifestError(f"{self.manifest.source}: none of its videos can be read, first: {first}")
        return score(found, self.manifest)
