"""Graceful stop: signal handlers set a flag that the training loop checks after each step."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

STOP_SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
"""By precedence where ranks received different ones: SIGUSR1 first, so that the job is requeued."""


class StopSignal:
    """Context manager in which SIGINT, SIGTERM and SIGUSR1 only set `received`.

    Exit with 130, 143 or 138, as a shell reports the signal:

        with StopSignal() as stop:
            while not stop.received:
                ...
        sys.exit(stop.exit_code)
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """128 + the signal's number; 0 if none was received."""
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
        # keep the first: torchrun and schedulers send more signals after it
        self.received = self.received or number
