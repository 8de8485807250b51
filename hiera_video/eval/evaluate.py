"""Multi-view evaluation: the same code validates while training and tests afterwards."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from hiera_video.data.dataset import TestViews, UnreadableVideo, VideoViews
from hiera_video.data.loading.loader import test_loader
from hiera_video.data.manifest.record import Manifest
from hiera_video.errors import ManifestError
from hiera_video.eval.forward import compute_logits
from hiera_video.eval.metrics import accuracy, cross_entropy, mean_average_precision
from hiera_video.eval.shards import EvalShard, EvalShardStore, merge, shard_ranges
from hiera_video.eval.views import Predictions
from hiera_video.runtime.distributed import World

logger = logging.getLogger(__name__)


def predict_views(
    model: nn.Module,
    dataset: TestViews,
    *,
    batch_size: int,
    workers: int,
    world: World,
    precision: str = "fp32",
    store: EvalShardStore | None = None,
    progress: bool = False,
) -> Predictions:
    """Run `model` over every view of every video, each video decoded once.

    The videos are cut into shards that are computed each alone, in batches of exactly `batch_size` views (a shard's
    last one is padded): neither the number of ranks nor an interruption changes a video's numbers. With `store`, finished
    shards are kept there and not computed again. Raises `RuntimeError` should a video be missing or counted twice.
    """
    model.eval()
    mine = shard_ranges(len(dataset), batch_size)[world.rank :: world.size]
    finished = {videos: shard for videos in mine if store and (shard := store.read(videos))}
    to_do = [videos for videos in mine if videos not in finished]
    if finished:
        count = sum(len(videos) for videos in finished)
        logger.info(
            "%d videos were finished before; %d to go", count, sum(len(videos) for videos in to_do)
        )
    loaded = iter(
        test_loader(dataset, workers=workers, rows=[index for videos in to_do for index in videos])
    )
    hidden = not (progress and world.is_main)
    with tqdm(
        total=sum(map(len, mine)), initial=sum(map(len, finished)), unit="video", disable=hidden
    ) as bar:
        for videos in to_do:
            finished[videos] = _compute(
                model, islice(loaded, len(videos)), batch_size, world, precision
            )
            if store:
                store.write(videos, finished[videos])
            bar.update(len(videos))
    parts = world.all_gather([finished[videos] for videos in mine])
    return merge([shard for part in parts for shard in part], of=len(dataset))


@torch.inference_mode()
def _compute(
    model: nn.Module,
    videos: Iterator[VideoViews | UnreadableVideo],
    batch_size: int,
    world: World,
    precision: str,
) -> EvalShard:
    broken: list[UnreadableVideo] = []
    read: list[tuple[int, int, float]] = []

    def views() -> Iterator[Tensor]:
        for video in videos:
            if isinstance(video, UnreadableVideo):
                broken.append(video)
            else:
                read.append((video.row, len(video.crops), video.seconds))
                yield from video.crops

    logits = [
        compute_logits(model, batch.to(world.device), precision).cpu()[:real].numpy()
        for batch, real in _fixed_batches(views(), batch_size)
    ]
    by_view = np.concatenate(logits) if logits else np.zeros((0, 0), np.float32)
    assert len(by_view) == sum(count for _, count, _ in read), "a view was lost"
    per_video = read[0][1] if read else 0
    if any(count != per_video for _, count, _ in read):
        raise RuntimeError(f"videos differ in their number of views: {read}")
    return EvalShard(
        rows=np.array([row for row, _, _ in read], dtype=np.int64),
        logits=by_view.reshape(len(read), per_video, by_view.shape[1]),
        seconds=np.array([seconds for _, _, seconds in read], dtype=np.float64),
        broken=tuple(broken),
    )


def _fixed_batches(items: Iterator[Tensor], size: int) -> Iterator[tuple[Tensor, int]]:
    """Batches of exactly `size` items, and how many of them are real. The memory of one serves for the next."""
    batch: Tensor | None = None
    while group := list(islice(items, size)):
        if batch is None:
            batch = torch.empty(size, *group[0].shape)
        torch.stack(group + group[:1] * (size - len(group)), out=batch)
        yield batch, len(group)


def score(predictions: Predictions, manifest: Manifest) -> dict[str, float]:
    """Accuracy (or mAP) and loss over the videos that could be read, and how many of how many those were."""
    numbers: dict[str, float] = {}
    if len(predictions.rows):
        shares = predictions.probabilities(multi_label=manifest.multi_label)
        if manifest.multi_label:
            hot = multi_hot(manifest, predictions.rows, shares.shape[1])
            numbers = {**mean_average_precision(shares, hot), "loss": cross_entropy(shares, hot)}
        else:
            labels = single_labels(manifest, predictions.rows)
            numbers = {**accuracy(shares, labels), "loss": cross_entropy(shares, labels)}
    return {**numbers, "evaluated": len(predictions.rows), "of": len(manifest.records)}


def single_labels(manifest: Manifest, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """[N] labels of manifest rows."""
    return np.array([manifest.records[row].label for row in rows], dtype=np.int64)


def multi_hot(
    manifest: Manifest, rows: Sequence[int] | NDArray[np.int64], num_classes: int
) -> NDArray[np.float32]:
    """[N, K] labels of manifest rows, 1 for each label of a video."""
    hot = np.zeros((len(rows), num_classes), np.float32)
    for place, row in enumerate(rows):
        hot[place, manifest.records[row].label] = 1
    return hot


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """The evaluator of `classify`: loss and one number a metric, best by top-1 (mAP for several labels a video)."""

    dataset: TestViews
    manifest: Manifest
    batch_size: int
    workers: int
    world: World
    precision: str = "fp32"

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
        found = predict_views(
            model,
            self.dataset,
            batch_size=self.batch_size,
            workers=self.workers,
            world=self.world,
            precision=self.precision,
        )
        if not len(found.rows):
            first = found.broken[0].message if found.broken else "the list is empty"
            raise ManifestError(
                f"{self.manifest.source}: none of its videos can be read, first: {first}"
            )
        return score(found, self.manifest)
