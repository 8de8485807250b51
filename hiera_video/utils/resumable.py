"""Resumable work: a list is split into shards, and finished shards survive an interruption.

A shard is a range of the list that is computed independently, so neither the number of processes,
nor the order in which they work, nor an interruption changes its content.

    shards/00000/00000012.<marker>    written last: shard 12 is finished; a json marker may list the
                                      other files: {"files": {name: {"bytes": size}}}
    locks/00000012                    locked by the process that computes shard 12
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hiera_video.errors import ConfigError, HieraVideoError
from hiera_video.utils.hashing import json_sha256
from hiera_video.utils.text_files import DAMAGED_JSON

logger = logging.getLogger(__name__)
ENTRIES_PER_FOLDER = 1000
"""File systems slow down on folders with millions of entries."""


def shard_ranges(total: int, size: int) -> list[range]:
    """Split `range(total)` into ranges of `size`; the last one may be shorter.

    >>> shard_ranges(5, 2)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    return [range(start, min(start + size, total)) for start in range(0, total, size)]


def identity_folder(parent: Path, identity: object) -> Path:
    """Return the subfolder of `parent` for work with this JSON-serialisable identity."""
    return parent / json_sha256(identity)[:16]


def file_state(path: str) -> list[int]:
    """Return a file's size and modification time, or an empty list if it cannot be read."""
    try:
        facts = Path(path).stat()
    except OSError:
        return []
    return [facts.st_size, facts.st_mtime_ns]


@dataclass(frozen=True)
class ShardFolder:
    """The files of the shards in one folder."""

    folder: Path
    marker: str
    """Suffix of the file that marks a shard as finished."""

    def path(self, number: int, suffix: str) -> Path:
        """Return the path of a shard's file: `path(12, "npz")` is `shards/00000/00000012.npz`."""
        subfolder = f"{number // ENTRIES_PER_FOLDER:05d}"
        return self.folder / "shards" / subfolder / f"{number:08d}.{suffix}"

    def is_finished(self, number: int) -> bool:
        """Return True if the shard has its marker, and the files that it lists in their size."""
        return self.path(number, self.marker).exists() and not self.damaged_files(number)

    def damaged_files(self, number: int) -> list[str]:
        """Return the names of the files of a finished shard that are missing or of another size."""
        path = self.path(number, self.marker)
        if not (state := file_state(str(path))) or state[0] == 0:
            return [path.name]
        if self.marker != "json":
            return []
        try:
            listed = json.loads(path.read_text()).get("files", {})
            sizes = {str(name): facts["bytes"] for name, facts in listed.items()}
        except DAMAGED_JSON:
            return [path.name]
        return [
            name
            for name, size in sizes.items()
            if file_state(str(path.with_name(name)))[:1] != [size]
        ]

    def finished(self) -> list[int]:
        """Return the numbers of all shards that have a marker, ascending."""
        found = self.folder.glob(f"shards/*/*.{self.marker}")
        return sorted(int(path.stem) for path in found if path.stem.isdecimal())

    def remove_partial(self, number: int) -> None:
        """Delete the temporary files that a killed process left of a shard."""
        for path in self.path(number, "").parent.glob(f".{number:08d}.*.partial"):
            path.unlink(missing_ok=True)


class ShardClaims(Iterator[int]):
    """Iterator over the unfinished shards that this process has claimed.

    A claim is a lock on a file (`flock`), so it ends with its process, however that ends. Processes
    share nothing but the folder and may start and stop at any time. On a file system without locks,
    a process claims only its own shards: those with `number % world_size == rank`.

    Args:
        shards: The folder that holds the shards.
        numbers: Shards in the order in which to try them; see `claim_order`.
        rank: Rank of this process.
        world_size: Number of processes.

    Raises:
        HieraVideoError: The folder was deleted; raised by `next`.
    """

    def __init__(
        self, shards: ShardFolder, numbers: Iterable[int], *, rank: int = 0, world_size: int = 1
    ) -> None:
        self._shards = shards
        self._numbers = iter(numbers)
        self._rank, self._world_size = rank, world_size
        self._locks = shards.folder / "locks"
        self._locks.mkdir(parents=True, exist_ok=True)
        self._held: dict[int, IO[str]] = {}
        self.num_busy = 0
        """Shards that were skipped because another process held them."""

    def __next__(self) -> int:
        for number in self._numbers:
            if self._shards.is_finished(number) or not self._claim(number):
                continue
            if self._shards.is_finished(number):  # between the first check and the lock
                self.release(number)
                continue
            self._reopen(number)
            return number
        raise StopIteration

    def release(self, number: int) -> None:
        """Give up the claim on a shard."""
        lock = self._held.pop(number, None)
        if lock is not None:
            # delete, then unlock: a process that has this file open finds the shard finished
            (self._locks / f"{number:08d}").unlink(missing_ok=True)
            lock.close()

    def _reopen(self, number: int) -> None:
        """Delete the marker of a claimed shard if its files are damaged."""
        marker = self._shards.path(number, self._shards.marker)
        if marker.exists():
            logger.warning(
                "%s: %s missing or damaged; shard %d is computed again",
                marker.parent,
                " and ".join(self._shards.damaged_files(number)),
                number,
            )
            marker.unlink(missing_ok=True)

    def _claim(self, number: int) -> bool:
        try:
            lock = (self._locks / f"{number:08d}").open("a")
        except FileNotFoundError as error:
            raise folder_deleted(self._shards.folder) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            self.num_busy += 1
            return False
        except OSError:  # the file system has no locks
            lock.close()
            return number % self._world_size == self._rank
        self._held[number] = lock
        return True


@contextmanager
def exclusive(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock on the file `path` while the block runs, then delete the file.

    The lock ends with its process, however that ends. On a file system without locks, the block
    runs unlocked.

    Args:
        path: File to create, in an existing folder.
        busy: Message of the error.

    Raises:
        ConfigError: Another process holds the lock, or the file cannot be written.
    """
    lock = _lock(path, busy)
    try:
        yield
    finally:
        # delete, then unlock: a process that has this file open finds that it is deleted
        path.unlink(missing_ok=True)
        lock.close()


def _lock(path: Path, busy: str) -> IO[str]:
    while True:
        try:
            lock = path.open("a")
        except OSError as error:
            raise ConfigError(
                f"{path.parent}: cannot be written ({error.strerror}); choose another folder"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise ConfigError(busy) from error
        except OSError:  # the file system has no locks
            return lock
        with suppress(FileNotFoundError):  # deleted by the process that held it before
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                return lock
        lock.close()


def folder_deleted(folder: Path) -> HieraVideoError:
    """Return the error for an output folder that was deleted while shards are computed."""
    return HieraVideoError(f"{folder}: was deleted meanwhile; run the same command again")


def claim_order(num_shards: int, rank: int, world_size: int) -> Iterator[int]:
    """Yield a rank's own shards, then those of the other ranks from their end.

    >>> list(claim_order(5, rank=0, world_size=2))
    [0, 2, 4, 3, 1]
    """
    yield from range(rank, num_shards, world_size)
    for other in range(1, world_size):
        yield from reversed(range((rank + other) % world_size, num_shards, world_size))
