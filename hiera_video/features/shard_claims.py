"""Who makes which shard: processes that know nothing of each other but the output folder.

A shard is claimed by a lock on a file (flock), which its owner's death releases, however it died. Rank r of w begins
with shards r, r + w, r + 2w … and then helps the others; processes may come and go at any time. On file systems without
locks each rank makes its own shards alone.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterable, Iterator
from typing import IO

from hiera_video.features.shards import Work

logger = logging.getLogger(__name__)


class Claims(Iterator[int]):
    """The shards that this process is to make (of all, or `only` these), each claimed when it is handed out."""

    def __init__(
        self, work: Work, *, rank: int = 0, world: int = 1, only: Iterable[int] | None = None
    ) -> None:
        self._work = work
        self._files = work.files
        self._held: dict[int, IO[str]] = {}
        self._order = _order(work.num_shards, rank, world) if only is None else iter(only)
        self._rank, self._world = rank, world
        self._locks = work.files.folder / "locks"
        self._locks.mkdir(parents=True, exist_ok=True)
        self.elsewhere = 0
        """Unfinished shards that other processes were busy with when this one came to them."""

    def __next__(self) -> int:
        for number in self._order:
            if self._is_done(number) or not self._claim(number):
                continue
            if self._is_done(number):  # between the look and the lock
                self.release(number)
                continue
            first = number * self._work.shard_videos
            self._files.clear_leftovers(number, range(first, first + len(self._work.shard(number))))
            return number
        raise StopIteration

    def release(self, number: int) -> None:
        """Give up a claim, once the shard is done."""
        lock = self._held.pop(number, None)
        if lock is not None:
            # in this order: whoever opened the file before finds the shard done once it gets the lock
            (self._locks / f"{number:08d}").unlink(missing_ok=True)
            lock.close()

    def _is_done(self, number: int) -> bool:
        return self._files.path(number, "json").exists()

    def _claim(self, number: int) -> bool:
        lock = (self._locks / f"{number:08d}").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            self.elsewhere += 1
            return False
        except OSError:  # no locks here
            lock.close()
            return number % self._world == self._rank
        self._held[number] = lock
        return True


def _order(shards: int, rank: int, world: int) -> Iterator[int]:
    """A rank's own shards, then those of the rank after it, from their end …: `list(_order(5, 0, 2)) == [0, 2, 4, 3, 1]`."""
    yield from range(rank, shards, world)
    for other in range(1, world):
        yield from reversed(range((rank + other) % world, shards, world))
