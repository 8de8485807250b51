"""Apply a function to many videos, in order, in worker processes or in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from threading import Timer
from typing import Any, TypeVar

from hiera_video.data.loading.pool import WorkerPool
from hiera_video.data.loading.quarantine import (
    OnOpen,
    Quarantine,
    QuarantinePolicy,
    raise_if_quarantined,
)

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_videos(
    function: Callable[[Item, OnOpen], Result],
    items: Iterable[Item],
    *,
    workers: int,
    quarantine: QuarantinePolicy,
    context: str | None = None,
) -> Iterator[Result]:
    """Yield `function(item, on_open)` for each item, in order.

    Items are taken as room becomes free, so `items` may be a generator without end. Closing the
    returned generator ends the workers.

    Args:
        function: Reads the videos of one item. It must call `on_open(path)` before it opens a
            file; the call raises `DecodeError` if the file is quarantined. With workers, function,
            items and results are pickled.
        items: What to apply the function to.
        workers: Number of processes. 0 runs the function in this process, where a decoder that
            hangs cannot be killed: past the deadline, the file is named in a warning.
        quarantine: When a file is quarantined, and where that is recorded.
        context: `fork`, `spawn` or `forkserver`; the platform's default if None.

    Raises:
        WorkerError: Several workers died on one item.
        Exception: Whatever `function` raised, when its item's turn comes.
    """
    if workers == 0:
        yield from _map_in_process(function, items, quarantine)
        return
    pool = WorkerPool(function, workers=workers, quarantine=quarantine, context=context)
    try:
        yield from pool.results(items)
    finally:
        pool.close()


def _map_in_process(
    function: Callable[[Item, OnOpen], Result],
    items: Iterable[Item],
    policy: QuarantinePolicy,
    timer: Callable[..., Timer] = Timer,
) -> Iterator[Result]:
    quarantine = Quarantine(policy.file)
    running: list[Timer] = []

    def stop_timer() -> None:
        while running:
            running.pop().cancel()

    def on_open(path: str) -> None:
        stop_timer()
        raise_if_quarantined(path, quarantine.reasons)
        arguments: Any = (path, policy.deadline_seconds)
        running.append(timer(policy.deadline_seconds, _warn_of_slow_file, arguments))
        running[0].daemon = True
        running[0].start()

    for item in items:
        try:
            result = function(item, on_open)
        finally:
            stop_timer()
        yield result


def _warn_of_slow_file(path: str, seconds: float) -> None:
    """Name the file that keeps the decoder busy, unless it also holds the interpreter's lock."""
    logger.warning(
        "%s: the decoder has been busy for more than data.deadline_seconds=%g and cannot be killed "
        "with data.workers=0; if it hangs, stop this process and restart with data.workers=1 or "
        "more, which quarantines such files",
        path, seconds,
    )  # fmt: skip
