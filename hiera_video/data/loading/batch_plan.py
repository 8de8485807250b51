"""Plan of the batches: record and position of every sample of a step, as pure arithmetic.

Resuming therefore needs one integer, the step.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from hiera_video.data.loading.balanced import balanced_rows
from hiera_video.errors import ConfigError
from hiera_video.utils.text_files import count_of


class Slot(NamedTuple):
    """One video of a micro-batch."""

    epoch: int
    place: int
    """Place in the epoch before shuffling; all random numbers of its samples depend on it."""
    position: int
    """Position in the step's global batch."""


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """The order of samples, and how the batches of a run share them among ranks and micro-batches.

    The global batch of a step is B videos at positions 0 … B-1. Mixup pairs position p with B-1-p.
    So each of the world × accumulate chunks takes positions from the front and their mirror images
    from the back, and reversing a chunk reverses the whole batch:

        B = 8, 2 chunks    chunk 0: 0 1 | 6 7    chunk 1: 2 3 | 4 5

    A chunk of an odd number of videos, such as one, cannot hold whole pairs. If clips are mixed,
    its videos' partners are loaded as well, after them; otherwise it takes videos in order:

        B = 4, 4 chunks    chunk 0: 0 + 3    chunk 1: 1 + 2    chunk 2: 2 + 1    chunk 3: 3 + 0
    """

    num_records: int
    """Videos in the manifest."""
    batch_size: int
    """Videos of one optimizer step, over all ranks and micro-batches."""
    seed: int
    world: int = 1
    """Number of ranks."""
    rank: int = 0
    """This process's rank."""
    accumulate: int = 1
    """Micro-batches of each rank in one step."""
    pairs: bool = True
    """Clips are mixed: every chunk needs both videos of each of mixup's pairs."""
    class_of: tuple[int, ...] | None = None
    """Class of each record, to balance the classes of an epoch; None: each record comes once."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate", "world"):
            if not getattr(self, name) >= 1:
                key = name if name == "world" else f"train.{name}"
                raise ConfigError(f"{key}={getattr(self, name)}: must be 1 or more")
        if not 0 <= self.rank < self.world:
            raise ConfigError(
                f"rank {self.rank} of {count_of(self.world, 'process')}: must be 0 to "
                f"{self.world - 1}"
            )
        if self.num_records < self.batch_size:
            raise ConfigError(
                f"train.batch_size={self.batch_size}: the manifest has "
                f"{count_of(self.num_records, 'video')}, not enough for one step; lower "
                "train.batch_size"
            )
        chunks = self.world * self.accumulate
        if self.batch_size % chunks:
            raise ConfigError(
                f"train.batch_size={self.batch_size}: must be a multiple of {chunks} "
                f"({count_of(self.world, 'process')} x train.accumulate={self.accumulate}); set it "
                f"to {max(self.batch_size // chunks, 1) * chunks}, for example"
            )

    @property
    def chunk_size(self) -> int:
        """Videos that a chunk trains on; partners that it loads besides come after them."""
        return self.batch_size // (self.world * self.accumulate)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch; the videos left over are different ones in each epoch."""
        return self.num_records // self.batch_size

    def rows(self, epoch: int) -> Sequence[int]:
        """Return the record at each place of an epoch, before shuffling."""
        if self.class_of is None:
            return range(self.num_records)
        return _balanced_rows(self.class_of, self.seed, epoch)

    def micro_batches(self, step: int) -> list[list[Slot]]:
        """Return this rank's micro-batches of a step, counted over all epochs.

        Each has `chunk_size` videos; if that is odd and clips are mixed, their partners follow, in
        the order in which reversing the whole list maps each video to its partner.
        """
        epoch, number = divmod(step, self.steps_per_epoch)
        start = number * self.batch_size
        order = _epoch_order(self.num_records, self.seed, epoch)
        return [
            [Slot(epoch, order[start + position], position) for position in self._positions(chunk)]
            for chunk in range(self.rank * self.accumulate, (self.rank + 1) * self.accumulate)
        ]

    def _positions(self, chunk: int) -> list[int]:
        size = self.chunk_size
        if size == self.batch_size:  # may be odd: the middle video is its own partner
            return list(range(size))
        if size % 2:
            own = range(chunk * size, (chunk + 1) * size)
            return [*own, *self._mirror(own)] if self.pairs else list(own)
        front = range(chunk * size // 2, (chunk + 1) * size // 2)
        return [*front, *self._mirror(front)]

    def _mirror(self, positions: range) -> list[int]:
        return [self.batch_size - 1 - position for position in reversed(positions)]


@lru_cache(maxsize=2)
def _epoch_order(num_records: int, seed: int, epoch: int) -> tuple[int, ...]:
    order = list(range(num_records))
    random.Random(f"order/{seed}/{epoch}").shuffle(order)
    return tuple(order)


@lru_cache(maxsize=2)
def _balanced_rows(class_of: tuple[int, ...], seed: int, epoch: int) -> list[int]:
    return balanced_rows(class_of, seed=seed, epoch=epoch)
