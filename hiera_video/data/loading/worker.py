"""The loop of a worker process: receive an item, apply the pool's function, send the result."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch

from hiera_video.data.loading.quarantine import OnOpen, raise_if_quarantined
from hiera_video.data.loading.shared_memory import receive, send
from hiera_video.data.loading.storage import ENVIRONMENT, PAUSES
from hiera_video.errors import HieraVideoError

PR_SET_PDEATHSIG = 1
"""Option of prctl(2)."""
POLL_SECONDS = 5.0
"""Wait for an item before looking whether the parent process is still alive."""
NICENESS = 10
"""Added to the workers' nice value, so that the threads of a model on the same cores run first: a
training step on two cores takes 1 to 9 % less time (benchmarks/README.md, "Data")."""


def run_worker(
    function: Callable[[Any, OnOpen], Any],
    connection: Any,
    parent_pid: int | None,
    die_with_parent: bool = False,
) -> None:
    """Run a worker process until its pool ends it, or the pool's process dies.

    Args:
        function: Applied to each item.
        connection: This process's end of the pipe to the pool.
        parent_pid: The pool's process, if it is this one's parent; otherwise None.
        die_with_parent: Have the system end this process when the thread that started it ends.
    """
    # Ctrl-C and a scheduler's SIGTERM reach the whole process group; the parent still needs its
    # next batch to stop at the end of a step, and ends its workers itself
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if parent_pid is not None and die_with_parent:
        _die_with_parent(parent_pid)
    torch.set_num_threads(1)
    os.nice(NICENESS)
    serve(function, connection, parent_pid)


def _die_with_parent(parent_pid: int) -> None:
    """Have Linux kill this process when its parent dies, even while a decoder hangs."""
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before
        os._exit(1)


def serve(function: Callable[[Any, OnOpen], Any], connection: Any, parent_pid: int | None) -> None:
    """Process items from `connection` until None arrives or the other end is gone."""
    quarantined: Mapping[str, str] = {}

    def on_open(path: str) -> None:
        raise_if_quarantined(path, quarantined)
        send(connection, ("opening", path))

    try:
        while True:
            # a forked sibling holds the parent's end of the pipe open, so that the parent's death
            # does not close it
            while not connection.poll(POLL_SECONDS):
                if parent_pid is not None and os.getppid() != parent_pid:
                    return
            task = receive(connection)
            if task is None:
                return
            item, quarantined = task
            _send_patiently(connection, _apply(function, item, on_open))
    except (EOFError, OSError):
        return  # the parent is gone


def _send_patiently(connection: Any, message: Any) -> None:
    """Send a message; wait where this process has no memory or file descriptors for its tensors."""
    for pause in PAUSES:
        try:
            send(connection, message)
        except OSError as error:
            if error.errno not in ENVIRONMENT:
                raise
            time.sleep(pause)
        else:
            return
    send(connection, message)


def _apply(function: Callable[[Any, OnOpen], Any], item: Any, on_open: OnOpen) -> tuple[str, Any]:
    try:
        return "result", function(item, on_open)
    except HieraVideoError as error:
        return "error", error.with_traceback(None)
    except Exception:
        # a bug: its own type may not pickle, and its traceback must not be lost
        return "error", RuntimeError(f"in a loader worker:\n{traceback.format_exc()}")
