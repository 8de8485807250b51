"""Multi-view evaluation, shared by validation during training and by `test`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hiera_video.data.dataset import TestViews, UnreadableVideo, VideoViews
from hiera_video.data.manifest.record import Manifest, as_tuple
from hiera_video.errors import ManifestError
from hiera_video.eval.forward import check_logits, forward_logits
from hiera_video.eval.metrics import accuracy, cross_entropy, mean_average_precision
from hiera_video.eval.remaining_shards import remaining_shards
from hiera_video.eval.shards import EvalShard, EvalShardStore, merge
from hiera_video.eval.views import Predictions
from hiera_video.runtime.device_feed import DeviceFeed, HostCopy, one_behind
from hiera_video.runtime.distributed import World


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
    """Run `model` on every view of every video, decoding each video once.

    The videos are divided into shards that are computed independently, in batches of exactly
    `batch_size` views (the last batch of a shard is padded). So neither the number of processes nor
    an interruption changes a single logit.

    Args:
        model: Maps views [B, 3, T, S, S] on `world.device` to logits [B, K]; set to eval mode.
        dataset: Views of each video of the manifest.
        batch_size: Views in a batch, and videos in a shard.
        workers: Processes that decode videos; 0 decodes in this process.
        world: This process's rank and device; the shards are distributed over the ranks.
        precision: As in `test.precision`.
        store: Where finished shards are kept; those already there are not computed again.
        progress: Show a progress bar on rank 0.

    Returns:
        The predictions for all videos, in manifest order, on every rank.

    Raises:
        ConfigError: A logit is not finite in fp16.
        RuntimeError: A video is missing or was counted twice.
    """
    model.eval()
    with remaining_shards(
        dataset,
        batch_size=batch_size,
        workers=workers,
        world=world,
        store=store,
        unit="video",
        progress=progress,
    ) as remaining:
        shards = [ShardInProgress(videos) for videos in remaining.rows]
        groups = _group_views(shards, remaining.loaded, batch_size)
        with closing(DeviceFeed(groups, world.device, ViewGroup.parts)) as feed:
            queued = _queue_shards(model, feed, precision)
            for computed in one_behind(queued, lag=feed.reads_ahead):
                remaining.finish(computed.videos, computed.result(precision))
    return merge(remaining.gather(world), of=len(dataset))


@dataclass(eq=False)
class ShardInProgress:
    """Videos of a shard that have been loaded, and the logits computed so far."""

    videos: range
    unreadable: list[UnreadableVideo] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    views_per_video: list[int] = field(default_factory=list)
    logits: list[tuple[HostCopy, int]] = field(default_factory=list)
    """Logits of each batch, and the number of views in it."""

    def views(self, videos: Iterator[VideoViews | UnreadableVideo]) -> Iterator[Tensor]:
        """Yield the views of `videos` and record the videos."""
        for video in videos:
            if isinstance(video, UnreadableVideo):
                self.unreadable.append(video)
            else:
                self.rows.append(video.row)
                self.seconds.append(video.seconds)
                self.views_per_video.append(len(video.crops))
                yield from video.crops

    def result(self, precision: str) -> EvalShard:
        """Wait for the logits and return the finished shard."""
        batches = [copy.result()[:count] for copy, count in self.logits]
        for batch in batches:
            check_logits(batch, precision)
        logits = torch.cat(batches).numpy() if batches else np.zeros((0, 0), np.float32)
        assert len(logits) == sum(self.views_per_video), "a view was lost"
        if len(set(self.views_per_video)) > 1:
            raise RuntimeError(f"videos differ in their number of views: {self.views_per_video}")
        views = max(self.views_per_video, default=0)
        return EvalShard(
            rows=np.array(self.rows, dtype=np.int64),
            logits=logits.reshape(len(self.rows), views, logits.shape[1]),
            seconds=np.array(self.seconds, dtype=np.float64),
            unreadable=tuple(self.unreadable),
        )


@dataclass(frozen=True, eq=False)
class ViewGroup:
    """Views of a shard that are computed together; none stand for its end."""

    shard: ShardInProgress
    views: list[Tensor]
    """As many as a batch has, padded with the first."""
    count: int
    """Number of views without the padding."""

    def parts(self) -> list[list[Tensor]]:
        """Return what the device gets."""
        return [self.views] if self.views else []


def _group_views(
    shards: Sequence[ShardInProgress],
    loaded: Iterator[VideoViews | UnreadableVideo],
    size: int,
) -> Iterator[list[ViewGroup]]:
    """Yield the groups of each shard, and its end."""
    for shard in shards:
        views = shard.views(islice(loaded, len(shard.videos)))
        while group := list(islice(views, size)):
            yield [ViewGroup(shard, group + group[:1] * (size - len(group)), len(group))]
        yield [ViewGroup(shard, [], 0)]


@torch.inference_mode()
def _queue_shards(
    model: nn.Module, feed: DeviceFeed[ViewGroup], precision: str
) -> Iterator[ShardInProgress]:
    """Queue the work on all groups, and yield each shard when that on its last one is queued."""
    for ((group, transfer),) in feed:
        if group.views:
            (views,) = transfer()
            logits = forward_logits(model, views, precision)
            group.shard.logits.append((feed.link.fetch(logits), group.count))
        else:
            yield group.shard


def score(predictions: Predictions, manifest: Manifest) -> dict[str, float]:
    """Return the metrics over the readable videos.

    Returns:
        `top1`, `top5` and `mean_class` (multi-label: `mAP`) in percent, `loss`, and the number of
        videos `evaluated` out of (`of`) all. Without a readable video, only the last two.
    """
    metrics: dict[str, float] = {}
    if len(predictions.rows):
        probabilities = predictions.probabilities(multi_label=manifest.multi_label)
        if manifest.multi_label:
            targets = multi_hot(manifest, predictions.rows, probabilities.shape[1])
            metrics = mean_average_precision(probabilities, targets)
            metrics["loss"] = cross_entropy(probabilities, targets)
        else:
            labels = single_labels(manifest, predictions.rows)
            metrics = accuracy(probabilities, labels)
            metrics["loss"] = cross_entropy(probabilities, labels)
    return {**metrics, "evaluated": len(predictions.rows), "of": len(manifest.records)}


def single_labels(manifest: Manifest, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the labels [N] of manifest rows."""
    return np.array([manifest.records[row].label for row in rows], dtype=np.int64)


def multi_hot(
    manifest: Manifest, rows: Sequence[int] | NDArray[np.int64], num_classes: int
) -> NDArray[np.float32]:
    """Return the multi-hot labels [N, K] of manifest rows."""
    labels = np.zeros((len(rows), num_classes), np.float32)
    for position, row in enumerate(rows):
        labels[position, list(as_tuple(manifest.records[row].label))] = 1
    return labels


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Evaluator of classification: metrics and loss over the views of a data set.

    The best checkpoint is the one with the highest top-1 accuracy (multi-label: mAP; `balanced`:
    mean of the classes' accuracies).
    """

    dataset: TestViews
    manifest: Manifest
    batch_size: int
    """Views in a batch."""
    workers: int
    """Processes that decode videos."""
    world: World
    precision: str = "fp32"
    """As in `test.precision`."""
    balanced: bool = False
    """Training draws all classes equally often."""
    higher_is_better: bool = True

    @property
    def score(self) -> str:
        """Name of the metric that chooses the best checkpoint."""
        if self.manifest.multi_label:
            return "mAP"
        return "mean_class" if self.balanced else "top1"

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Evaluate `model`.

        Returns:
            The metrics of `score`.

        Raises:
            ManifestError: No video can be read.
        """
        predictions = predict_views(
            model,
            self.dataset,
            batch_size=self.batch_size,
            workers=self.workers,
            world=self.world,
            precision=self.precision,
        )
        if not len(predictions.rows):
            messages = [video.message for video in predictions.unreadable]
            first = messages[0] if messages else "the list is empty"
            raise ManifestError(
                f"{self.manifest.source}: none of its videos can be read; first error: {first}"
            )
        return score(predictions, self.manifest)
