"""Profile of data loading: seconds per stage.

    with Stopwatch() as stopwatch:
        dataset[0, 0]
    stopwatch.seconds   # {"open": 0.001, "decode": 0.031, "convert": 0.006, "augment": 0.012, …}

The loading code marks its stages with `stage(name)`, which costs nothing unless a stopwatch is
active. The time of a nested stage is not counted in the enclosing one. Single-threaded: each worker
process has stages of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

Stage = Literal["open", "decode", "convert", "augment", "crop", "collate"]
STAGES: dict[Stage, str] = {
    "open": "find the frames' times",
    "decode": "packets to frames",
    "convert": "requested frames to RGB",
    "augment": "RandAugment, colour jitter",
    "crop": "crop, scale, flip, normalise, erase",
    "collate": "clips to a batch",
}
"""Stages in the order in which a sample passes through them, with a description."""

_active: list[Stopwatch] = []


def stage(name: Stage) -> AbstractContextManager[None]:
    """Return a context whose time the active stopwatch, if there is one, counts as `name`."""
    return _active[-1].stage(name) if _active else nullcontext()


class Stopwatch:
    """Seconds per stage, measured while the `with` block of the stopwatch runs."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[Stage, float] = dict.fromkeys(STAGES, 0.0)
        self._clock = clock
        self._stack: list[Stage] = []
        self._since = 0.0

    def __enter__(self) -> Stopwatch:
        _active.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _active.remove(self)

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Count the time of the block as `name` and pause the enclosing stage."""
        self._count_elapsed()
        self._stack.append(name)
        try:
            yield
        finally:
            self._count_elapsed()
            self._stack.pop()

    def _count_elapsed(self) -> None:
        now = self._clock()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        self._since = now
