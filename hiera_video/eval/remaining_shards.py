"""Compute the shards of a test that are not finished yet."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from tqdm import tqdm

from hiera_video.data.dataset import TestViews, UnreadableVideo, VideoViews
from hiera_video.data.detection.dataset import BoxViews
from hiera_video.data.loading.loader import test_loader
from hiera_video.eval.shards import EvalShard, EvalShardStore
from hiera_video.runtime.distributed import World
from hiera_video.utils.resumable import shard_ranges
from hiera_video.utils.text_files import count_of

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class RemainingShards:
    """This process's shards of a test."""

    rows: list[range]
    """Rows of each shard that is not finished."""
    loaded: Iterator[VideoViews | UnreadableVideo]
    """Their videos, in the order of `rows`."""
    _all: list[range]
    _finished: dict[range, EvalShard]
    _store: EvalShardStore | None
    _bar: tqdm[None]

    def finish(self, rows: range, shard: EvalShard) -> None:
        """Keep a computed shard."""
        self._finished[rows] = shard
        if self._store:
            self._store.write(rows, shard)
        self._bar.update(len(rows))

    def gather(self, world: World) -> list[EvalShard]:
        """Return the shards of all ranks, on every rank."""
        ranks = world.all_gather([self._finished[rows] for rows in self._all])
        return [shard for rank in ranks for shard in rank]


@contextmanager
def remaining_shards(
    dataset: TestViews | BoxViews,
    *,
    batch_size: int,
    workers: int,
    world: World,
    store: EvalShardStore | None,
    unit: str,
    progress: bool,
) -> Iterator[RemainingShards]:
    """Read finished shards from `store`, and load the videos of the others.

    Args:
        dataset: Views of each row; every `batch_size` rows are a shard.
        batch_size: Rows of a shard.
        workers: Processes that decode videos; 0 decodes in this process. They end with the context.
        world: This process's rank; the shards are distributed over the ranks.
        store: Where finished shards are kept.
        unit: Name of a row in log and progress bar, such as "video".
        progress: Show a progress bar on rank 0.
    """
    shards = shard_ranges(len(dataset), batch_size)[world.rank :: world.size]
    finished = {rows: shard for rows in shards if store and (shard := store.read(rows))}
    remaining = [rows for rows in shards if rows not in finished]
    done, left = (sum(map(len, parts)) for parts in (finished, remaining))
    if finished:
        logger.info("resuming: %s already finished, %d remaining", count_of(done, unit), left)
    with (
        closing(
            test_loader(dataset, workers=workers, rows=[row for rows in remaining for row in rows])
        ) as loaded,
        tqdm(
            total=done + left,
            initial=done,
            unit=unit,
            disable=not (progress and world.is_main),
        ) as bar,
    ):
        yield RemainingShards(remaining, loaded, shards, finished, store, bar)
