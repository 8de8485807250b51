"""Scores of the boxes of key frames, and the evaluator of action detection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from hiera_video.data.dataset import UnreadableVideo, VideoViews
from hiera_video.data.detection.dataset import BoxViews, KeyFrameViews
from hiera_video.data.detection.key_frame import BoxManifest
from hiera_video.errors import ManifestError
from hiera_video.eval.detection_results import BoxScores, detection_metrics
from hiera_video.eval.forward import check_logits
from hiera_video.eval.remaining_shards import remaining_shards
from hiera_video.eval.shards import EvalShard, EvalShardStore
from hiera_video.runtime.distributed import World
from hiera_video.runtime.precision import autocast


def score_boxes(
    model: nn.Module,
    dataset: BoxViews,
    *,
    batch_size: int,
    workers: int,
    world: World,
    precision: str = "fp32",
    store: EvalShardStore | None = None,
    progress: bool = False,
) -> BoxScores:
    """Score the boxes of every key frame, each in the crop that shows most of it.

    The key frames are divided into shards of `batch_size` that are computed independently, so
    neither the number of processes nor an interruption changes a score.

    Args:
        model: A `HieraDetector` on `world.device`; set to eval mode.
        dataset: Crops and boxes of each key frame.
        batch_size: Crops in a batch (the last one of a shard is padded), and key frames in a shard.
        workers: Processes that decode videos; 0 decodes in this process.
        world: This process's rank and device; the shards are distributed over the ranks.
        precision: As in `test.precision`.
        store: Where finished shards are kept; those already there are not computed again.
        progress: Show a progress bar on rank 0.

    Returns:
        Scores between 0 and 1 of all boxes, on every rank.

    Raises:
        ConfigError: A logit is not finite in fp16.
        ManifestError: A key frame lies outside its video.
    """
    model.eval()
    with remaining_shards(
        dataset,
        batch_size=batch_size,
        workers=workers,
        world=world,
        store=store,
        unit="key frame",
        progress=progress,
    ) as remaining:
        for frames in remaining.rows:
            views = list(islice(remaining.loaded, len(frames)))
            remaining.finish(frames, _score_shard(model, views, batch_size, world, precision))
    return _merge(remaining.gather(world), dataset)


@torch.inference_mode()
def _score_shard(
    model: nn.Module,
    videos: Sequence[VideoViews | UnreadableVideo],
    batch_size: int,
    world: World,
    precision: str,
) -> EvalShard:
    crops: list[Tensor] = []
    boxes: list[Tensor] = [torch.zeros(0, 5)]
    readable = [video for video in videos if isinstance(video, KeyFrameViews)]
    for video in readable:
        boxes.append(video.boxes + torch.tensor([len(crops), 0, 0, 0, 0]))
        crops += video.crops
    every = torch.cat(boxes)
    logits = torch.zeros(len(every), int(model.num_classes))  # type: ignore[arg-type]
    for start in range(0, len(crops), batch_size):
        group = crops[start : start + batch_size]
        padded = torch.stack(group + group[:1] * (batch_size - len(group)))
        chosen = (every[:, 0] >= start) & (every[:, 0] < start + batch_size)
        own = every[chosen] - torch.tensor([start, 0, 0, 0, 0])
        with autocast(precision, world.device):
            found = model(padded.to(world.device), boxes=own.to(world.device))
        logits[chosen] = found.float().cpu()
    check_logits(logits, precision)
    return EvalShard(
        rows=np.array([video.row for video in readable for _ in video.boxes], np.int64),
        logits=logits[:, None].numpy(),
        seconds=np.array([video.seconds for video in readable], np.float64),
        outside=np.concatenate([np.zeros(0, np.bool_), *(video.outside for video in readable)]),
        unreadable=tuple(video for video in videos if isinstance(video, UnreadableVideo)),
    )


def _merge(shards: Sequence[EvalShard], dataset: BoxViews) -> BoxScores:
    rows = np.concatenate([shard.rows for shard in shards])
    order = rows.argsort(kind="stable")
    logits = np.concatenate([shard.logits[:, 0] for shard in shards])[order]
    probabilities = (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
    unreadable = sorted(
        (video for shard in shards for video in shard.unreadable), key=lambda video: video.row
    )
    missing = {video.row for video in unreadable}
    frames = [record for record in dataset.records if record.row not in missing]
    counts = [len(frame.boxes) for frame in frames]
    expected = np.repeat([frame.row for frame in frames], counts)
    if not np.array_equal(rows[order], expected):
        raise RuntimeError("boxes are missing or were scored twice")
    return BoxScores(
        frames=tuple(frames),
        scores=tuple(np.split(probabilities, np.cumsum(counts)[:-1])) if frames else (),
        unreadable=tuple(unreadable),
        boxes_outside=sum(int(shard.outside.sum()) for shard in shards),
    )


@dataclass(frozen=True, kw_only=True)
class FrameMAP:
    """Evaluator of action detection: mAP over the key frames of a list."""

    dataset: BoxViews
    """The boxes that are scored."""
    truth: BoxManifest
    """The labelled boxes."""
    counted: tuple[int, ...]
    """Classes that count."""
    batch_size: int
    """Crops in a batch."""
    workers: int
    """Processes that decode videos."""
    world: World
    precision: str = "fp32"
    """As in `test.precision`."""
    higher_is_better: bool = True
    score: str = "mAP"

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Return mAP and box accuracy in percent (NaN without labelled boxes), and counts.

        Raises:
            ManifestError: No key frame can be read.
        """
        found = score_boxes(
            model,
            self.dataset,
            batch_size=self.batch_size,
            workers=self.workers,
            world=self.world,
            precision=self.precision,
        )
        require_readable(found, self.truth)
        metrics = detection_metrics(found, self.truth, self.counted)
        chosen = {key: metrics[key] for key in ("mAP", "box_accuracy", "boxes")}
        counts = {"evaluated": len(found.frames), "of": len(self.dataset)}
        return {
            key: math.nan if value is None else value for key, value in {**chosen, **counts}.items()
        }


def require_readable(found: BoxScores, truth: BoxManifest) -> None:
    """Raise `ManifestError` if no key frame could be read."""
    if not found.frames:
        first = found.unreadable[0].message if found.unreadable else "the list is empty"
        raise ManifestError(
            f"{truth.source}: none of its key frames can be read; first error: {first}"
        )
