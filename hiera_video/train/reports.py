"""Errors that end a training run, logged with their remedy."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from torch import Tensor

from hiera_video.runtime.distributed import World
from hiera_video.train.stats import StepStats
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.text_files import count_of

logger = logging.getLogger(__name__)


def report_non_finite(
    step: int, stats: StepStats, rows_of_rank: list[Tensor], world: World, folder: Path | None
) -> None:
    """Log a refused step and write the manifest rows of its videos to `non_finite.json`.

    Every rank must call this.

    Args:
        step: The step, from 0.
        stats: Its loss and gradient norm.
        rows_of_rank: Manifest rows of this rank's micro-batches.
        world: The ranks.
        folder: The run's folder; None writes no file.
    """
    loss, norm = stats.averages["loss"], stats.grad_norm
    rows = world.all_gather([rows.tolist() for rows in rows_of_rank])
    if not world.is_main:
        return
    where = str(rows)
    if folder:
        path = folder / "non_finite.json"
        facts = {"step": step, "loss": str(loss), "grad_norm": str(norm), "rows_by_rank": rows}
        write_atomic(path, json.dumps(facts))
        where = f"in {path}"
    logger.error(
        "step %d: loss %s, gradient norm %s: stopped before the weights changed; the manifest "
        "rows of the step are %s; lower optim.lr or set train.precision=fp32",
        step,
        loss,
        norm,
        where,
    )


def report_unreadable(broken: int, epochs: int, num_videos: int, max_broken: float) -> None:
    """Log that `broken` samples in `epochs` epochs of `num_videos` videos exceed the limit."""
    logger.error(
        "%s in %s of %s: more than data.max_broken=%g; "
        "list the unreadable videos with hiera-video check-data, repair them or raise "
        "data.max_broken, then run the same command again to resume",
        count_of(broken, "unreadable sample"),
        count_of(epochs, "epoch"),
        count_of(num_videos, "video"),
        max_broken,
    )
