"""Handling of workers that hang or die: quarantine a file, retry an item, or stop."""

from __future__ import annotations

import logging
import signal
from collections import Counter

from hiera_video.data.loading.quarantine import Quarantine, QuarantinePolicy
from hiera_video.errors import WorkerError

logger = logging.getLogger(__name__)

MAX_DEATHS = 5
"""Deaths of workers on one item before the run stops: then the machine (memory) is the cause. Also
the files in a row at which workers are killed."""
DEATHS_AT_FILE = 2
"""Deaths of workers at one file before it is quarantined."""
CRASHES = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL}
"""Exit codes that a decoder's bug leaves, unlike a kill from outside."""


class WorkerFaults:
    """Counts hangs, crashes and deaths, and decides what follows from them."""

    def __init__(self, policy: QuarantinePolicy) -> None:
        self.deadline_seconds = policy.deadline_seconds
        self._quarantine = Quarantine(policy.file)
        self._deaths: Counter[int] = Counter()
        self._deaths_at: Counter[tuple[int | None, str]] = Counter()
        """Deaths by file; kills from outside by item and file."""
        self._unproven: list[tuple[str, str]] = []
        """Files (path, message) at which workers were killed, since the last item that was read.
        They are recorded once another item shows that the machine is not the cause."""

    @property
    def quarantined(self) -> dict[str, str]:
        """Reason for quarantine of each quarantined path."""
        return self._quarantine.reasons

    def record_hang(self, path: str) -> None:
        """Quarantine a file that kept a worker busy beyond the deadline."""
        if path in self.quarantined:
            return  # another worker has hung in it at the same time
        self._add(
            path,
            "hung",
            "kept a worker busy for more than "
            f"data.deadline_seconds={self.deadline_seconds:g}; it was killed",
        )

    def record_death(self, item: int, path: str | None, exit_code: int | None) -> None:
        """Count the death of a worker, and quarantine a file at which two workers died.

        Args:
            item: Number of the item that the worker was busy with.
            path: File that it had open; None before the item's first file.
            exit_code: Its exit code; None if it could not be killed.

        Raises:
            WorkerError: `MAX_DEATHS` workers have died on the item, or at so many files in a row.
        """
        name = f"exit code {exit_code}"
        if exit_code is not None and exit_code < 0:
            name = signal.Signals(-exit_code).name
        if path is not None and path not in self.quarantined:
            is_crash = exit_code in CRASHES
            key = (None if is_crash else item, path)
            self._deaths_at[key] += 1
            if self._deaths_at[key] == DEATHS_AT_FILE:
                self._deaths[item] = 0
                self._record_second_death(path, name, is_crash)
                return
        self._deaths[item] += 1
        if self._deaths[item] >= MAX_DEATHS:
            where = f"reading {path}" if path else "before opening a file"
            raise WorkerError(
                f"{MAX_DEATHS} loader workers died on one batch, the last with {name} {where}; if "
                "memory is short, lower data.workers or train.batch_size"
            )
        logger.warning("a loader worker died (%s); restarting it", name)

    def _record_second_death(self, path: str, name: str, is_crash: bool) -> None:
        message = f"ended a worker twice with {name}"
        if is_crash:
            self._add(path, "crashed", message)
            return
        self._unproven.append((path, message))
        if len(self._unproven) >= MAX_DEATHS:
            raise WorkerError(
                f"loader workers died twice at each of {MAX_DEATHS} files in a row, the last with "
                f"{name} reading {path}; if memory is short, lower data.workers or train.batch_size"
            )
        logger.warning("%s: %s, perhaps for lack of memory; skipped from now on", path, message)
        self.quarantined[path] = "crashed"

    def forget(self, item: int) -> None:
        """Drop the counts of an item that is done, and record the files that killed workers."""
        self._deaths.pop(item, None)
        for key in [key for key in self._deaths_at if key[0] == item]:
            del self._deaths_at[key]
        for path, message in self._unproven:
            self._quarantine.add(path, "crashed", message)
        self._unproven.clear()

    def _add(self, path: str, reason: str, message: str) -> None:
        logger.warning("%s: %s; skipped from now on", path, message)
        self._quarantine.add(path, reason, message)
