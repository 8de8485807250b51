"""Worker processes that read videos; no worker that dies or hangs ends the run.

    items ──▶ least busy worker ──▶ results, in the order of the items

torch's DataLoader has neither a deadline nor a way to replace one worker, and its signal handler
raises wherever the main thread happens to be when a worker dies. Here the parent supervises its
workers while it waits for a result. A worker that is busy with one file beyond the deadline is
killed (SIGKILL: a decoder may hold the interpreter's lock and ignore everything else), the file is
quarantined, and a new worker retries the item. If the file's storage does not respond, though, the
worker gets more time, and the run stops past a limit. A worker that died is replaced; two deaths at
one file quarantine that file too, whatever the signal (the kernel kills for lack of memory).
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from multiprocessing import connection as pipes
from multiprocessing import util
from typing import Any, Generic, TypeVar

from hiera_video.data.loading.faults import WorkerFaults
from hiera_video.data.loading.quarantine import OnOpen, QuarantinePolicy
from hiera_video.data.loading.shared_memory import receive, send
from hiera_video.data.loading.storage import storage_advice, storage_responds
from hiera_video.data.loading.worker import run_worker
from hiera_video.errors import StorageError

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")

TASKS_PER_WORKER = 2
"""Items assigned to each worker and not yet yielded: bounds the memory of what is read ahead."""
START_SECONDS = 120.0
"""Added to the deadline until a worker opens its first file: a spawned one imports torch first."""
EXIT_SECONDS = 2.0
"""Time that workers get to exit, idle ones by themselves and others after SIGKILL."""
LOOK_SECONDS = 1.0
"""The pool looks at its workers at least this often while it waits for a result."""
MAX_EXTENSIONS = 3
"""Deadlines in a row for which a worker may wait for storage that does not respond."""
SLOW_SECONDS = 1.0
"""Storage that takes longer to deliver a sample of a file was away."""
PAUSE_SECONDS = 5.0
"""A longer time without a look does not count towards deadlines: the process was suspended, perhaps
with its workers (Ctrl-Z, preemption), or busy elsewhere."""


@dataclass
class WorkerHandle:
    """A worker process, seen from the pool."""

    process: Any
    connection: Any
    busy_since: float
    """When it took up its current file, or was started."""
    tasks: deque[tuple[int, Any]] = field(default_factory=deque)
    """Number and item of each task that it has not answered; it is busy with the first."""
    path: str | None = None
    """File that it has open; None before the first of an item."""
    is_new: bool = True
    """True until it opens its first file."""
    extensions: int = 0
    """Deadlines that it has exceeded in its current file because the storage did not respond."""

    def overdue_at(self, deadline_seconds: float) -> float:
        """Return the time at which the worker exceeds the deadline; infinity if it is idle."""
        if not self.tasks:
            return float("inf")
        return self.busy_since + deadline_seconds + (START_SECONDS if self.is_new else 0.0)


@dataclass(frozen=True)
class _Failure:
    error: Exception


class WorkerPool(Generic[Item, Result]):
    """Applies a function to items in worker processes that ignore SIGINT, SIGTERM and SIGUSR1.

    Args:
        function: Called as `function(item, on_open)`; calls `on_open(path)` before it opens a file.
        workers: Number of processes.
        quarantine: When a file is quarantined, and where that is recorded.
        context: `fork`, `spawn` or `forkserver`; the platform's default if None.
        start: Starts a process and returns it with the pool's end of its pipe; for tests.
        wait: Waits for messages, as `multiprocessing.connection.wait` does; for tests.
        clock: Returns the time in seconds; for tests.
        responds: Returns False if a file cannot be read at the moment; for tests.
    """

    def __init__(
        self,
        function: Callable[[Item, OnOpen], Result],
        *,
        workers: int,
        quarantine: QuarantinePolicy,
        context: str | None = None,
        start: Callable[[], tuple[Any, Any]] | None = None,
        wait: Callable[..., list[Any]] = pipes.wait,
        clock: Callable[[], float] = time.monotonic,
        responds: Callable[[str], bool] = storage_responds,
    ) -> None:
        self._start_process = start or partial(start_process, function, context)
        self._wait = wait
        self._clock = clock
        self._responds = responds
        self._last_look = clock()
        self._last_fault = float("-inf")
        """When the storage last did not respond."""
        self._faults = WorkerFaults(quarantine)
        self._ready: dict[int, Result | _Failure] = {}
        self._workers: list[WorkerHandle] = []
        # runs before multiprocessing's own exit handler, which would wait for ever for children
        # that ignore SIGTERM
        self._end = util.Finalize(self, end_workers, args=(self._workers,), exitpriority=100)
        for _ in range(workers):
            self._workers.append(self._start())

    def results(self, items: Iterable[Item]) -> Iterator[Result]:
        """Yield the function's results in the order of `items`.

        Items are taken as room becomes free. What the function raised is raised when its item's
        turn comes.

        Raises:
            WorkerError: Several workers died on one item.
            StorageError: The storage of a file does not respond.
        """
        waiting, assigned = enumerate(items), 0
        for number in count():
            assigned = self._assign_items(waiting, number, assigned)
            if assigned == number:
                return
            while number not in self._ready:
                self._supervise()
            result = self._ready.pop(number)
            self._faults.forget(number)
            if isinstance(result, _Failure):
                raise result.error
            # workers read the next items while the caller uses this result
            assigned = self._assign_items(waiting, number + 1, assigned)
            yield result

    def close(self) -> None:
        """End the workers, including those that hang."""
        self._end()

    # -- tasks -------------------------------------------------------------------------------------

    def _assign_items(
        self, waiting: Iterator[tuple[int, Item]], yielded: int, assigned: int
    ) -> int:
        """Assign items while there is room, and return how many have been assigned in all."""
        while assigned - yielded < TASKS_PER_WORKER * len(self._workers):
            task = next(waiting, None)
            if task is None:
                break
            self._assign(min(self._workers, key=lambda worker: len(worker.tasks)), task)
            assigned += 1
        return assigned

    def _assign(self, worker: WorkerHandle, task: tuple[int, Item]) -> None:
        if not worker.tasks:
            worker.busy_since, worker.path = self._clock(), None
        worker.tasks.append(task)
        # a worker that has died is replaced at the next look, and its tasks assigned again
        with suppress(OSError):
            send(worker.connection, (task[1], self._faults.quarantined))

    def _receive(self, worker: WorkerHandle) -> None:
        kind, content = receive(worker.connection)
        # by this process's clock: while it was busy elsewhere, the message may have waited
        worker.busy_since, worker.extensions = self._clock(), 0
        if kind == "opening":
            worker.path, worker.is_new = content, False
            return
        number, _ = worker.tasks.popleft()
        worker.path = None
        self._ready[number] = _Failure(content) if kind == "error" else content

    # -- workers -----------------------------------------------------------------------------------

    def _supervise(self) -> None:
        """Wait for a message or the first deadline, and handle it."""
        deadline = self._faults.deadline_seconds
        now = self._excuse_pause(waited=0.0)
        first = min(worker.overdue_at(deadline) for worker in self._workers)
        timeout = min(max(first - now, 0.0), LOOK_SECONDS)
        heard = set(self._wait([worker.connection for worker in self._workers], timeout=timeout))
        now = self._excuse_pause(waited=timeout)
        for place, worker in enumerate(self._workers):
            if worker.connection in heard:
                try:
                    self._receive(worker)
                except (EOFError, OSError):
                    self._replace(place, hung=False)
            elif now >= worker.overdue_at(deadline) and not self._extend(worker):
                self._replace(place, hung=True)

    def _extend(self, worker: WorkerHandle) -> bool:
        """Give a worker more time, and return True, if its file's storage does not respond.

        Also if it was away less than two deadlines ago: the worker may read again only now.
        """
        if worker.path is None:
            return False
        started = self._clock()
        responds = self._responds(worker.path)
        now = self._clock()
        if not responds or now - started > SLOW_SECONDS:
            self._last_fault = now
        elif now - self._last_fault >= 2 * self._faults.deadline_seconds:
            return False
        worker.extensions += 1
        if not responds:
            if worker.extensions > MAX_EXTENSIONS:
                raise StorageError(storage_advice(worker.path, "it does not respond"))
            logger.warning("%s: its storage does not respond; waiting", worker.path)
        worker.busy_since = now
        return True

    def _excuse_pause(self, waited: float) -> float:
        """Shift the deadlines by a time without a look, and return the current time."""
        now = self._clock()
        pause = now - self._last_look - waited
        if pause > PAUSE_SECONDS:
            for worker in self._workers:
                worker.busy_since = min(worker.busy_since + pause, now)
        self._last_look = now
        return now

    def _start(self) -> WorkerHandle:
        process, connection = self._start_process()
        return WorkerHandle(process, connection, busy_since=self._clock())

    def _replace(self, place: int, *, hung: bool) -> None:
        """End a worker, record its fault, and start another with its tasks."""
        old = self._workers[place]
        if not hung:
            old.process.join(1.0)  # its pipe ends a moment before it does
        old.process.kill()
        old.process.join(EXIT_SECONDS)  # one that waits for a dead disk cannot even be killed
        old.connection.close()
        if old.tasks:
            if hung and old.path is not None:
                self._faults.record_hang(old.path)
            else:
                self._faults.record_death(old.tasks[0][0], old.path, old.process.exitcode)
        self._workers[place] = new = self._start()
        for task in old.tasks:
            self._assign(new, task)


def start_process(function: Callable[[Any, OnOpen], Any], context: str | None) -> tuple[Any, Any]:
    """Start a worker process, and return it with this end of its pipe."""
    methods: Any = multiprocessing.get_context(context)
    ours, theirs = methods.Pipe()
    # the parent of a worker may be a fork server; then this process's death does close the pipe
    parent_pid = None if methods.get_start_method() == "forkserver" else os.getpid()
    in_main_thread = threading.current_thread() is threading.main_thread()  # it lives as long as us
    arguments = (function, theirs, parent_pid, in_main_thread)
    process = methods.Process(target=run_worker, args=arguments, daemon=True)
    process.start()
    theirs.close()  # so that a dead worker's pipe ends, also for workers forked later
    return process, ours


def end_workers(workers: list[WorkerHandle]) -> None:
    """End worker processes: idle ones by asking them, busy ones by SIGKILL."""
    for worker in workers:
        if worker.tasks:
            worker.process.kill()  # what it reads will not be used
        else:
            with suppress(OSError):
                send(worker.connection, None)
    deadline = time.monotonic() + EXIT_SECONDS
    for worker in workers:
        worker.process.join(max(deadline - time.monotonic(), 0.1))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join(EXIT_SECONDS)
        worker.connection.close()
    workers.clear()
