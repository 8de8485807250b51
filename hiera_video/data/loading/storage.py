"""Reads that outlast a passing fault of the storage, such as a disk that is away for a moment.

A video counts as unreadable only if it fails alone. After a failure, the guard looks at the videos
that it has read before: if those cannot be opened either, the storage (or the process, which is out
of file descriptors) is at fault. It then pauses and retries, and stops the run past a limit.
"""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from hiera_video.data.loading.quarantine import OnOpen
from hiera_video.data.manifest.record import Record
from hiera_video.errors import DecodeError, StorageError

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds to wait before each retry while the storage fails; then the run stops."""
OWN_PAUSES = (0.5, 1.0, 2.0)
"""The same where only this file fails, but in a way that the storage or memory can cause."""
STEP_SECONDS = 0.5
"""A pause reports the file as open again this often, so that it exceeds no deadline."""
ENVIRONMENT = frozenset(
    getattr(errno, name)
    for name in (
        *("EMFILE", "ENFILE", "ENOMEM", "EIO", "ESTALE", "EAGAIN", "ENODEV", "ENXIO"),
        *("ENOTCONN", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ECONNRESET"),
        *("EREMOTEIO", "ESHUTDOWN"),
    )
    if hasattr(errno, name)
)
"""Error numbers that say something about the machine rather than about a file."""
PROBE_SECONDS = 8.0
"""Storage that cannot deliver samples of a file in this time does not respond."""
PROBE = """
import os, sys
path = os.fsencode(sys.argv[1])
if os.path.isdir(path):
    path = os.path.join(path, next(iter(sorted(os.listdir(path)))))
file = os.open(path, os.O_RDONLY)
size = os.fstat(file).st_size
if hasattr(os, "posix_fadvise"):
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)  # what is cached says nothing
for number in range(17):
    os.pread(file, 4096, size * number // 16)
"""
FINAL = ("hung", "crashed", "empty_window", "too_large", "backend")
"""Reasons that the storage cannot cause."""


class StorageGuard:
    """Reads the videos of a list, and tells an unreadable video from a fault of the storage.

    Args:
        records: The videos of the list. Until one of them has been read, the folder that all of
            them lie in shows whether the storage is there.
        sleep: Waits for a number of seconds; for tests.

    Raises:
        StorageError: That folder is missing or empty from the start.
    """

    def __init__(
        self, records: Sequence[Record], sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._records = records
        self._sleep = sleep
        self._read: dict[str, deque[str]] = {}
        """The last files that were read of each folder."""
        self._recent: deque[str] = deque(maxlen=3)
        if fault := self._probe_root():
            raise StorageError(storage_advice(records[0].path, fault))

    def read(
        self, record: Record, attempt: Callable[[], Result], on_open: OnOpen | None = None
    ) -> Result:
        """Return `attempt()`, retried as long as the storage is at fault.

        Args:
            record: The video that `attempt` reads.
            attempt: Opens and reads the video.
            on_open: Called with the path before each attempt.

        Raises:
            DecodeError: The video is unreadable, and the storage is not the cause.
            StorageError: The storage fails for longer than the sum of `PAUSES`.
        """
        path = record.shard_video.shard if record.shard_video else record.path
        pauses: dict[str, Iterator[float]] = {
            "storage": iter(PAUSES),
            "file": iter(OWN_PAUSES),
            "none": iter((0.0,)),  # the fault may have ended between the failure and the look
        }
        while True:
            try:
                if on_open is not None:
                    on_open(record.path)
                result = attempt()
            except (DecodeError, OSError, MemoryError) as error:
                if isinstance(error, DecodeError) and error.reason in FINAL:
                    raise
                scope, fault = self._find_fault(path, error)
                pause = next(pauses[scope], None)
                if pause is None:
                    if scope == "none" or (scope == "file" and isinstance(error, DecodeError)):
                        raise
                    raise StorageError(storage_advice(record.path, fault)) from error
                if scope == "storage" and pause == PAUSES[0]:
                    logger.warning("%s; trying for %g s", storage_advice(path, fault), sum(PAUSES))
                self._wait(pause, record.path, on_open)
            else:
                self._remember(path)
                return result

    def _wait(self, seconds: float, path: str, on_open: OnOpen | None) -> None:
        while seconds > 0:
            self._sleep(min(seconds, STEP_SECONDS))
            seconds -= STEP_SECONDS
            if on_open is not None:
                on_open(path)

    def _remember(self, path: str) -> None:
        if not _is_remote(path) and (not self._recent or self._recent[-1] != path):
            self._recent.append(path)
            self._read.setdefault(os.path.dirname(path), deque(maxlen=2)).append(path)  # noqa: PTH120

    def _find_fault(self, path: str, error: BaseException) -> tuple[str, str]:
        """Return what is at fault, `storage`, `file` or `none`, and a description."""
        if _is_remote(path):
            unreachable = isinstance(error, DecodeError) and error.reason == "unreachable"
            return ("storage", str(error)) if unreachable else ("none", "")
        witnesses = self._read.get(os.path.dirname(path)) or self._recent  # noqa: PTH120
        faults = [_probe(witness) for witness in witnesses]
        if all(faults):
            fault = faults[0] if faults else self._probe_root()
            if fault:
                return "storage", fault
        number = _environment_error(error)
        if number == errno.ENOMEM or _probe_number(path) in ENVIRONMENT:
            return "file", os.strerror(number or errno.EIO)
        return "none", ""

    def _probe_root(self) -> str | None:
        """Describe what is wrong with the folder that all videos lie in; None if it has files."""
        paths = [record.path for record in self._records if record.shard_video is None]
        paths += [record.shard_video.shard for record in self._records if record.shard_video]
        paths = [os.path.abspath(path) for path in paths if not _is_remote(path)]  # noqa: PTH100
        if len(paths) < 2:  # a single missing video says nothing about its folder
            return None
        ends = (min(paths), max(paths))
        root = os.path.commonpath([os.path.dirname(path) for path in ends])  # noqa: PTH120
        try:
            with os.scandir(root) as entries:
                return None if next(entries, None) else f"{root}: is empty"
        except FileNotFoundError:
            return f"{root}: no such folder"
        except OSError as error:
            return f"{root}: {error.strerror}" if error.errno in ENVIRONMENT else None


def storage_responds(path: str) -> bool:
    """Return False if samples of a file take over `PROBE_SECONDS`; an error is a response.

    Reads in another process, as a read from a dead disk cannot be interrupted.
    """
    shard, mark, _ = path.rpartition("!")
    if mark and not os.path.lexists(path):
        path = shard
    if _is_remote(path):
        return True
    command, nowhere = [sys.executable, "-ISc", PROBE, path], subprocess.DEVNULL
    try:
        process = subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere)
    except OSError:  # too few processes, descriptors or memory: no fault of the file either
        return False
    try:
        process.wait(PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # it ends when the storage lets it
        return False
    return True


def _is_remote(path: str) -> bool:
    return "://" in path


def _probe(path: str) -> str | None:
    """Describe why a file or folder of frames cannot be opened now; None if it can."""
    number = _probe_number(path)
    return f"{path}: {os.strerror(number)}" if number else None


def _probe_number(path: str) -> int:
    """Return the error number of opening and reading a file; 0 if it succeeds."""
    try:
        if Path(path).is_dir():
            with os.scandir(path) as entries:
                next(entries, None)
        elif not Path(path).is_fifo():  # opening one would wait for a writer
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (paths may hold a NUL)
                file.read(1)
    except OSError as error:
        return error.errno or errno.EIO
    except ValueError:
        return errno.EINVAL
    return 0


def _environment_error(error: BaseException | None) -> int | None:
    """Return the error number of the environment that caused an error, if there is one."""
    while error is not None:
        if isinstance(error, MemoryError):
            return errno.ENOMEM
        if isinstance(error, OSError) and error.errno in ENVIRONMENT:
            return error.errno
        error = error.__cause__ or error.__context__
    return None


def storage_advice(path: str, fault: str) -> str:
    """Return the message for a fault of the storage that holds `path`."""
    if os.strerror(errno.EMFILE) in fault:
        remedy = "raise the limit (ulimit -n)"
    elif os.strerror(errno.ENOMEM) in fault:
        remedy = "free memory or raise the limit (ulimit -v)"
    else:
        remedy = "check that the disk with the videos is mounted, and data.root"
    return f"{path}: the storage fails ({fault}); {remedy}, then run the same command again"
