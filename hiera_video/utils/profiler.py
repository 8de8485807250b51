"""Where the time of loading goes. The loading code says what it is at; nothing is timed unless somebody watches.

    with Stopwatch() as watch:
        dataset[0, 0]
    watch.seconds       # {"open": 0.001, "decode": 0.031, "convert": 0.006, "augment": 0.012, "crop": 0.006}

A stage inside another counts for itself alone. One thread: workers are processes, each with stages of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

Stage = Literal["open", "decode", "convert", "augment", "crop", "collate"]
STAGES: dict[Stage, str] = {
    "open": "find the frames' times",
    "decode": "packets to pictures",
    "convert": "wanted pictures to RGB",
    "augment": "RandAugment, colour jitter",
    "crop": "crop, scale, flip, normalise, erase",
    "collate": "clips to a batch",
}
"""In the order in which a sample goes through them, and what is done there."""

_watching: list[Stopwatch] = []


def stage(name: Stage) -> AbstractContextManager[None]:
    """What runs in this `with` is `name`'s part of the time, if a stopwatch runs."""
    return _watching[-1].stage(name) if _watching else nullcontext()


class Stopwatch:
    """Seconds of each stage while it is entered."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[Stage, float] = dict.fromkeys(STAGES, 0.0)
        self._clock = clock
        self._within: list[Stage] = []
        self._since = 0.0

    def __enter__(self) -> Stopwatch:
        _watching.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _watching.remove(self)

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Charge what has passed to the stage around this one, what passes now to `name`."""
        self._charge()
        self._within.append(name)
        try:
            yield
        finally:
            self._charge()
            self._within.pop()

    def _charge(self) -> None:
        now = self._clock()
        if self._within:
            self.seconds[self._within[-1]] += now - self._since
        self._since = now
