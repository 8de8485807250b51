"""Worker processes for reading video: results in order, and no worker that dies or hangs ends the run.

    items ──▶ least busy worker ──▶ results, back in the order of the items

torch's DataLoader has neither a deadline nor a way to replace one worker, and its signal handler raises wherever the
main thread happens to be when a worker dies. Here the parent looks at its workers while it waits for a result. One that
is busy with one file beyond the deadline is killed (SIGKILL: a decoder may hold the interpreter's lock and ignore all
else), the file is quarantined, and a new worker starts at the same item. One that died starts again at the same item;
two crashes in one file quarantine that file too.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from multiprocessing import connection as pipes
from multiprocessing import util
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

import torch

from hiera_video.data.loading import shared_memory as packing
from hiera_video.data.loading.quarantine import (
    OnOpen,
    Quarantine,
    QuarantinePolicy,
    raise_if_quarantined,
)
from hiera_video.errors import HieraVideoError, WorkerError

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

TASKS_EACH = 2
"""Items that a worker has been given and that are not yet handed out: bounds the memory of what is read ahead."""
START_SECONDS = 120.0
"""Given to a worker, on top of the deadline, until it opens its first file: a spawned one imports torch anew."""
DEATHS = 5
"""Workers that one item may cost before the run stops: then it is the machine (memory), not chance."""
LEAVE_SECONDS = 2.0
"""Given to idle workers to end by themselves."""
CRASHES = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL}
"""Exit codes that a decoder's bug leaves, as opposed to somebody's kill."""


@dataclass
class _Worker:
    process: BaseProcess
    connection: Any
    tasks: deque[tuple[int, Any]] = field(default_factory=deque)
    """Number and item of what it was given and has not answered, in order; it is busy with the first."""
    path: str | None = None
    """File that it is busy with; None before the first of an item."""
    since: float = field(default_factory=time.monotonic)
    """When it took up that file, or was started."""
    is_new: bool = True
    """It has not opened a file yet."""


@dataclass(frozen=True)
class _Failure:
    error: Exception


class WorkerPool(Generic[Item, Result]):
    """`function(item, opening)` in worker processes that ignore SIGINT, SIGTERM and SIGUSR1.

    `context`: fork, spawn or forkserver, the system's default where unset.
    """

    def __init__(
        self,
        function: Callable[[Item, OnOpen], Result],
        *,
        workers: int,
        quarantine: QuarantinePolicy,
        context: str | None = None,
    ) -> None:
        self._function = function
        self._context: Any = multiprocessing.get_context(context)
        self._deadline = quarantine.deadline_seconds
        self._quarantine = Quarantine(quarantine.file)
        self._ready: dict[int, Result | _Failure] = {}
        self._deaths: dict[int, int] = {}
        self._crashes: dict[str, int] = {}
        self._workers: list[_Worker] = []
        # before multiprocessing's own end, which would wait for ever for children that ignore SIGTERM
        self._end = util.Finalize(self, _end, args=(self._workers,), exitpriority=100)
        for _ in range(workers):
            self._workers.append(self._start())

    def results(self, items: Iterable[Item]) -> Iterator[Result]:
        """`function`'s results in the order of `items`. Raises what it raised, when its item's turn comes."""
        waiting, given = enumerate(items), 0
        for number in count():
            given = self._give(waiting, number, given)
            if given == number:
                return
            while number not in self._ready:
                self._look()
            result = self._ready.pop(number)
            self._deaths.pop(number, None)
            if isinstance(result, _Failure):
                raise result.error
            given = self._give(
                waiting, number + 1, given
            )  # what comes next is read while this one is used
            yield result

    def close(self) -> None:
        """End the workers: those that hang, too."""
        self._end()

    # -- work ----------------------------------------------------------------------------------------------------------

    def _give(self, waiting: Iterator[tuple[int, Item]], handed_out: int, given: int) -> int:
        """Hand out items while there is room; returns how many have been handed out in all."""
        while given - handed_out < TASKS_EACH * len(self._workers):
            task = next(waiting, None)
            if task is None:
                break
            self._assign(min(self._workers, key=lambda worker: len(worker.tasks)), task)
            given += 1
        return given

    def _assign(self, worker: _Worker, task: tuple[int, Item]) -> None:
        if not worker.tasks:
            worker.since, worker.path = time.monotonic(), None
        worker.tasks.append(task)
        with suppress(
            OSError
        ):  # it has died: seen, and its tasks given to another, at the next look
            packing.send(worker.connection, (task[1], self._quarantine.reasons))

    def _look(self) -> None:
        """Wait for news of a worker, or for the first deadline, and see to it."""
        now = time.monotonic()
        patience = max(min(self._overdue_at(worker) for worker in self._workers) - now, 0.0)
        heard = set(
            pipes.wait([worker.connection for worker in self._workers], timeout=min(patience, 1.0))
        )
        for place, worker in enumerate(self._workers):
            if worker.connection in heard:
                try:
                    self._take(worker, packing.receive(worker.connection))
                except (EOFError, OSError):
                    self._replace(place, self._died)
            elif time.monotonic() >= self._overdue_at(worker):
                self._replace(place, self._hung)

    def _overdue_at(self, worker: _Worker) -> float:
        if not worker.tasks:
            return float("inf")
        return worker.since + self._deadline + (START_SECONDS if worker.is_new else 0.0)

    def _take(self, worker: _Worker, message: tuple[str, Any]) -> None:
        kind, content = message
        # by this process's clock: while it was busy elsewhere, the message may have waited, and the worker with it
        worker.since = time.monotonic()
        if kind == "opening":
            worker.path, worker.is_new = content, False
            return
        number, _ = worker.tasks.popleft()
        worker.path = None
        self._ready[number] = _Failure(content) if kind == "error" else content

    # -- workers -------------------------------------------------------------------------------------------------------

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        # started otherwise, a worker's parent may be a fork server, and this process's death does close the pipe
        forked_by = os.getpid() if self._context.get_start_method() == "fork" else None
        process = self._context.Process(
            target=_work, args=(self._function, theirs, forked_by), daemon=True
        )
        process.start()
        theirs.close()  # so that a dead worker's pipe ends, also for workers forked later
        return _Worker(process, ours)

    def _replace(self, place: int, blame: Callable[[_Worker], None]) -> None:
        """End a worker, find out whose fault it was, and start another with its tasks."""
        old = self._workers[place]
        if blame == self._died:
            old.process.join(1.0)  # its pipe ends a moment before it does
        old.process.kill()
        old.process.join(LEAVE_SECONDS)  # one that waits for a dead disk cannot even be killed
        old.connection.close()
        if old.tasks:
            blame(old)
        self._workers[place] = new = self._start()
        for task in old.tasks:
            self._assign(new, task)

    def _hung(self, worker: _Worker) -> None:
        if worker.path is None:
            self._died(worker)
            return
        if worker.path in self._quarantine.reasons:
            return  # another worker has hung in it at the same time
        message = f"kept a worker busy for more than data.deadline_seconds={self._deadline:g}; it was killed"
        self._pass_over(worker.path, "hung", message)

    def _died(self, worker: _Worker) -> None:
        number, path, code = worker.tasks[0][0], worker.path, worker.process.exitcode
        if path is not None and code in CRASHES:
            self._crashes[path] = self._crashes.get(path, 0) + 1
            if self._crashes[path] == 2:
                self._pass_over(
                    path, "crashed", f"ended a worker twice with {signal.Signals(-code).name}"
                )
                return
        self._deaths[number] = self._deaths.get(number, 0) + 1
        what = f"exit code {code}" if code is None or code >= 0 else signal.Signals(-code).name
        if self._deaths[number] >= DEATHS:
            raise WorkerError(
                f"{DEATHS} loader workers have died over one batch, the last with {what} at {path or 'its start'}; "
                "if memory is short, lower data.workers or train.batch_size"
            )
        logger.warning("a loader worker died (%s); another goes on in its place", what)

    def _pass_over(self, path: str, reason: str, message: str) -> None:
        logger.warning("%s: %s; passed over from now on", path, message)
        self._quarantine.add(path, reason, message)


def _end(workers: list[_Worker]) -> None:
    for worker in workers:
        if worker.tasks:
            worker.process.kill()  # what it reads will not be used
        else:
            with suppress(OSError):
                packing.send(worker.connection, None)
    deadline = time.monotonic() + LEAVE_SECONDS
    for worker in workers:
        worker.process.join(max(deadline - time.monotonic(), 0.1))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join(LEAVE_SECONDS)
        worker.connection.close()
    workers.clear()


# -- in the worker -----------------------------------------------------------------------------------------------------


def _work(function: Callable[[Any, OnOpen], Any], connection: Any, forked_by: int | None) -> None:
    """A worker's life: tasks in, results out, until the parent says that it is enough, or dies."""
    # Ctrl-C and a scheduler's SIGTERM reach the whole process group; the parent still needs its next batch to end on a
    # step's boundary, and ends its workers itself
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    reasons: dict[str, str] = {}

    def opening(path: str) -> None:
        raise_if_quarantined(path, reasons)
        packing.send(connection, ("opening", path))

    try:
        while True:
            # a forked sibling holds the parent's end of the pipe open, so that the parent's death does not close it
            while not connection.poll(5.0):
                if forked_by is not None and os.getppid() != forked_by:
                    return
            task = packing.receive(connection)
            if task is None:
                return
            item, reasons = task
            packing.send(connection, _answer(function, item, opening))
    except (EOFError, OSError):
        return  # the parent is gone


def _answer(function: Callable[[Any, OnOpen], Any], item: Any, opening: OnOpen) -> tuple[str, Any]:
    try:
        return "result", function(item, opening)
    except HieraVideoError as error:
        return "error", error.with_traceback(None)
    except Exception:
        # a bug of ours: its own type may not pickle, its place must not be lost
        return "error", RuntimeError(f"in a loader worker:\n{traceback.format_exc()}")
