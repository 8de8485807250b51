"""Compute shards in one process, which may be one of several that torchrun or a SLURM array starts.

The processes do not communicate; they share the work through claims in the output folder.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import torch
from tqdm import tqdm

from hiera_video.data.dataset import UnreadableVideo
from hiera_video.data.loading.map_videos import map_videos
from hiera_video.features.extract import BatchRunner, ClipEncoder
from hiera_video.features.shard_reading import ReadRequests, VideoPart, read_in_order
from hiera_video.features.shards import ExtractionPlan, PartlyUnreadableError, compute_shard
from hiera_video.utils.resumable import ShardClaims, claim_order
from hiera_video.utils.text_files import count_of

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class ExtractionStats:
    """Counts and times of what this process has extracted."""

    shards: int = 0
    clips: int = 0
    videos: int = 0
    unreadable: int = 0
    seconds: float = 0.0
    """Wall time."""
    waited: float = 0.0
    """Part of `seconds` in which the model waited for frames."""

    def add(self, summary: dict[str, Any]) -> None:
        """Count a finished shard."""
        self.shards += 1
        self.clips += summary["clips"]
        self.videos += summary["videos"]
        self.unreadable += summary["broken"]

    def describe(self, workers: int) -> str:
        """Return a line for the log; `workers` is the value of `data.workers`."""
        rate = self.clips / self.seconds if self.seconds else 0.0
        line = (
            f"{count_of(self.clips, 'clip')} of {count_of(self.videos, 'video')} in "
            f"{count_of(self.shards, 'shard')}, {rate:.1f} clips/s"
        )
        if self.unreadable:
            unreadable = count_of(self.unreadable, "unreadable video")
            line += f"; {unreadable}: see the rows with status=broken"
        if self.seconds and (share := self.waited / self.seconds) > 0.1:
            line += (
                f"; decode-bound: the model waited for frames {share:.0%} of the time, raise "
                f"data.workers={workers}"
            )
        return line


@dataclass(frozen=True)
class ProcessRank:
    """Rank of this process among those that torchrun or a SLURM array started."""

    rank: int
    world_size: int
    local_rank: int


def process_rank() -> ProcessRank:
    """Return this process's rank from the environment; rank 0 of 1 if nothing is set."""
    rank, size, local = (
        int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    )
    return ProcessRank(rank, max(size, 1), local)


def run_local(
    plan: ExtractionPlan,
    encoder: ClipEncoder,
    *,
    rank: int = 0,
    world_size: int = 1,
    progress: bool = True,
) -> ExtractionStats:
    """Compute shards in this process until none is left to claim.

    Args:
        plan: The extraction.
        encoder: The model.
        rank: Rank of this process; rank r starts with shards r, r + world_size, …
        world_size: Number of processes that share the output folder.
        progress: Show a progress bar on rank 0.
    """
    torch.set_num_threads(plan.config.threads)
    bar = ExtractionProgress(plan, hidden=not progress or rank > 0)
    numbers = claim_order(len(plan.ranges), rank, world_size)
    claims = ShardClaims(plan.files, numbers, rank=rank, world_size=world_size)
    stats = ExtractionStats()
    read = partial(map_videos, plan.read, workers=plan.workers, quarantine=plan.quarantine)
    for _ in compute_shards(plan, encoder, claims, read, stats, bar):
        bar.refresh()
    bar.close()
    if claims.num_busy:
        logger.info(
            "%s left to other processes; if these are interrupted, run the same command again",
            count_of(claims.num_busy, "shard"),
        )
    return stats


def compute_shards(
    plan: ExtractionPlan,
    encoder: ClipEncoder,
    claims: ShardClaims,
    read_requests: ReadRequests,
    stats: ExtractionStats,
    bar: ExtractionProgress | None = None,
) -> Iterator[dict[str, Any]]:
    """Compute the claimed shards and yield the summary of each.

    Args:
        plan: The extraction.
        encoder: The model.
        claims: Shards to compute; taken when reading ahead reaches them.
        read_requests: Reads requested windows, for instance in worker processes.
        stats: Updated with every shard.
        bar: Updated with every part of a video.
    """
    started = time.monotonic()
    clip_shape = (encoder.model.config.in_chans, *encoder.model.config.input_size)
    runner = BatchRunner(encoder, plan.config.batch_size, clip_shape)
    unreadable: dict[int, UnreadableVideo] = {}
    states: dict[int, list[str]] = {}
    numbers: Iterator[int] = claims
    while True:
        repeat: list[int] = []
        stream = read_in_order(
            _take(plan, numbers, states), read_requests, plan.read.windows_per_part
        )
        timed = _count_waiting(stream, stats)
        for (_, number), items in groupby(timed, key=lambda item: item[:2]):
            parts = _report((part for _, _, part in items), bar)
            try:
                summary = compute_shard(plan, number, parts, runner, unreadable, states[number])
            except PartlyUnreadableError as error:
                unreadable[error.video.row] = error.video
                repeat.append(number)
                continue
            stats.add(summary)
            stats.seconds = time.monotonic() - started
            claims.release(number)
            yield summary
        if not repeat:
            return
        numbers = iter(repeat)


def _take(
    plan: ExtractionPlan, numbers: Iterator[int], states: dict[int, list[str]]
) -> Iterator[tuple[int, Any]]:
    for number in numbers:
        states[number] = plan.states(number)
        plan.files.clear_leftovers(number, plan.ranges[number])
        yield number, plan.shard(number)


def _count_waiting(stream: Iterator[Any], stats: ExtractionStats) -> Iterator[Any]:
    while True:
        before = time.monotonic()
        item = next(stream, None)
        stats.waited += time.monotonic() - before
        if item is None:
            return
        yield item


def _report(
    parts: Iterator[VideoPart | UnreadableVideo], bar: ExtractionProgress | None
) -> Iterator[VideoPart | UnreadableVideo]:
    """Yield the parts, update the progress bar and log unreadable videos."""
    for part in parts:
        if isinstance(part, UnreadableVideo):
            logger.warning("row %d is unreadable (%s): %s", part.row, part.reason, part.message)
        if bar is not None:
            bar.update(part)
        yield part


class ExtractionProgress:
    """Progress bar over videos, with clips per second, failures and time left.

    Shards of other processes count as they finish.
    """

    def __init__(self, plan: ExtractionPlan, *, hidden: bool) -> None:
        self._plan = plan
        self._hidden = hidden
        finished = self._count_finished()
        if finished:
            logger.info(
                "resuming: %d of %s already finished",
                finished,
                count_of(len(plan.records), "video"),
            )
        self._bar: Any = tqdm(
            total=len(plan.records), initial=finished, unit="video", disable=hidden
        )
        self._started = time.monotonic()
        self._clips = self._failed = 0
        self._last_row = -1

    def update(self, part: VideoPart | UnreadableVideo) -> None:
        """Count a video, or one more part of it."""
        if part.row != self._last_row:
            self._bar.update(1)
        self._last_row = part.row
        self._failed += isinstance(part, UnreadableVideo)
        self._clips += len(part.windows) if isinstance(part, VideoPart) else 0
        rate = self._clips / max(time.monotonic() - self._started, 1e-9)
        self._bar.set_postfix_str(f"{rate:.1f} clips/s, {self._failed} failed", refresh=False)

    def refresh(self) -> None:
        """Add the shards that other processes have finished."""
        if not self._hidden:
            self._bar.n = max(self._bar.n, self._count_finished())
            self._bar.refresh()

    def close(self) -> None:
        """Close the bar and leave it on the screen."""
        self._bar.close()

    def _count_finished(self) -> int:
        if self._hidden:
            return 0
        return sum(len(self._plan.ranges[number]) for number in self._plan.files.finished())
