"""Signals that ask a run to stop: the handler sets a flag, the loop looks after each step."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

STOP_SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
"""Where ranks received different ones, the first of these counts: a job that may come back comes back."""


class StopSignal:
    """While entered, SIGINT, SIGTERM and SIGUSR1 only set `received`.

    with StopSignal() as stop:
        while not stop.received:
            ...
    sys.exit(stop.exit_code)            # 130, 143 or 138, as shells report a process ended by the signal
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """128 + the signal's number; 0 where none came."""
        return 0 if self.received is None else 128 + self.received

    def __enter__(self) -> StopSignal:
        self._previous = {number: signal.signal(number, self._handle) for number in STOP_SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = (
            self.received or number
        )  # torchrun and schedulers send others after the first
