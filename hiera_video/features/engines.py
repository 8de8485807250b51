"""The engine of one process, or of the several that torchrun or a SLURM array starts: no process talks to another."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import torch
from tqdm import tqdm

from hiera_video.data.dataset import UnreadableVideo
from hiera_video.data.loading.map_videos import map_videos
from hiera_video.features.extract import BatchRunner, ClipEncoder
from hiera_video.features.shard_claims import Claims
from hiera_video.features.shard_reading import Results, VideoPart, read_in_order
from hiera_video.features.shards import LateFailure, Work, run_shard

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Tally:
    """What this process has done."""

    shards: int = 0
    clips: int = 0
    videos: int = 0
    broken: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    """Seconds of those that the model stood still because no frames were there."""

    def add(self, seal: dict[str, Any]) -> None:
        """Count a finished shard."""
        self.shards += 1
        for name in ("clips", "videos", "broken"):
            setattr(self, name, getattr(self, name) + seal[name])

    def in_words(self, workers: int) -> str:
        """`2000 clips of 340 videos in 2 shards, 51.2 clips/s; …`"""
        rate = self.clips / self.seconds if self.seconds else 0.0
        words = f"{self.clips} clips of {self.videos} videos in {self.shards} shards, {rate:.1f} clips/s"
        if self.broken:
            words += f"; {self.broken} videos could not be read: rows with status=broken say why"
        if self.seconds and (share := self.waited / self.seconds) > 0.1:
            words += f"; decode-bound: the model waited for frames {share:.0%} of the time, raise data.workers={workers}"
        return words


@dataclass(frozen=True)
class Place:
    """Which of how many processes this is, from the environment that torchrun (or an array's task) sets."""

    rank: int
    world: int
    local_rank: int


def place() -> Place:
    """Rank 0 of 1 where nothing is set."""
    rank, world, local = (
        int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    )
    return Place(rank, max(world, 1), local)


def run_here(
    work: Work, encoder: ClipEncoder, *, rank: int = 0, world: int = 1, progress: bool = True
) -> Tally:
    """Make shards until none is left to claim."""
    torch.set_num_threads(work.config.threads)
    bar = ExtractionProgress(work, hidden=not progress or rank > 0)
    claims = Claims(work, rank=rank, world=world)
    tally = Tally()
    results = partial(map_videos, work.read, workers=work.workers, quarantine=work.quarantine)
    make(work, encoder, claims, results, tally, bar)
    bar.close()
    if claims.elsewhere:
        logger.info(
            "other processes are busy with shards here; once they end, the same command finishes what they left"
        )
    return tally


def make(
    work: Work,
    encoder: ClipEncoder,
    numbers: Iterator[int],
    results: Results,
    tally: Tally,
    bar: ExtractionProgress | None = None,
) -> None:
    """Make the shards `numbers`, which are taken as reading ahead comes to them; `numbers.release` is told of each."""
    started = time.monotonic()
    clip_shape = (encoder.model.config.in_chans, *encoder.model.config.input_size)
    runner = BatchRunner(encoder, work.config.batch_size, clip_shape)
    known: dict[int, UnreadableVideo] = {}
    release: Callable[[int], None] = getattr(numbers, "release", lambda number: None)
    to_do: Iterator[int] = numbers
    while True:
        again: list[int] = []
        stream = read_in_order(
            ((number, work.shard(number)) for number in to_do), results, work.read.part
        )
        for (_, number), parts in groupby(_waited_for(stream, tally), key=lambda item: item[:2]):
            try:
                seal = run_shard(
                    work, number, _shown((part for _, _, part in parts), bar), runner, known
                )
            except LateFailure as failure:
                known[failure.video.row] = failure.video
                again.append(number)
                continue
            tally.add(seal)
            tally.seconds = time.monotonic() - started
            release(number)
            if bar is not None:
                bar.finished(tally)
        if not again:
            return
        to_do = iter(again)


def _waited_for(stream: Iterator[Any], tally: Tally) -> Iterator[Any]:
    while True:
        before = time.monotonic()
        item = next(stream, None)
        tally.waited += time.monotonic() - before
        if item is None:
            return
        yield item


def _shown(
    parts: Iterator[VideoPart | UnreadableVideo], bar: ExtractionProgress | None
) -> Iterator[VideoPart | UnreadableVideo]:
    """Every part, told to the bar and, where a video is broken, to the log."""
    for part in parts:
        if isinstance(part, UnreadableVideo):
            logger.warning("row %d cannot be read (%s): %s", part.row, part.reason, part.message)
        if bar is not None:
            bar.read(part)
        yield part


class ExtractionProgress:
    """Videos done of all, time left, clips a second, failures. Others' shards are counted as they finish."""

    def __init__(self, work: Work, *, hidden: bool) -> None:
        self._work = work
        self._hidden = hidden
        self._before = self._done()
        if self._before and not hidden:
            logger.info("%d of %d videos were finished before", self._before, len(work.records))
        self._bar: Any = tqdm(
            total=len(work.records), initial=self._before, unit="video", disable=hidden
        )
        self._started = time.monotonic()
        self._clips = self._failed = 0
        self._last_row = -1

    def read(self, part: VideoPart | UnreadableVideo) -> None:
        """A video, or a part of it, has come."""
        if part.row != self._last_row:
            self._bar.update(1)
        self._last_row = part.row
        self._failed += isinstance(part, UnreadableVideo)
        self._clips += len(part.stretches) if isinstance(part, VideoPart) else 0
        rate = self._clips / max(time.monotonic() - self._started, 1e-9)
        self._bar.set_postfix_str(f"{rate:.1f} clips/s, {self._failed} failed", refresh=False)

    def finished(self, tally: Tally) -> None:
        """A shard is done: look what the others have done meanwhile."""
        if not self._hidden:
            self._bar.n = max(self._bar.n, self._done())
            self._bar.refresh()

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def _done(self) -> int:
        if self._hidden:
            return 0
        return sum(len(self._work.shard(number)) for number in self._work.files.finished())
