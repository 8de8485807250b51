"""A `DeviceLink` to a GPU that is slow to do anything, in CPU memory.

Its queue runs only when something waits for it, so a buffer that is written again too early gives
wrong tensors, and so does a result that is read too early.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hiera_video.runtime.device_feed import HostCopy

GARBAGE = 77


class FakeEvent:
    """A point in the fake device's queue."""

    def __init__(self, link: FakeLink) -> None:
        self.link, self.place = link, link.queued

    def synchronize(self) -> None:
        self.link.run_until(self.place)


class LateCopy:
    """The future of a copy that a thread does at the last moment."""

    def __init__(self, copy: Callable[[], object]) -> None:
        self.copy: Callable[[], object] | None = copy

    def result(self) -> None:
        copy, self.copy = self.copy, None
        if copy is not None:
            copy()


class FakeLink:
    """The link; `DeviceFeed(…, link=FakeLink())`.

    Args:
        late: The thread copies when its result is wanted, else at once.
        computes: Tensors are on the device at once, for models that really compute with them.
    """

    buffers = 2

    def __init__(self, *, late: bool = False, computes: bool = False) -> None:
        self.late, self.computes, self.closed = late, computes, False
        self.allocated: list[int] = []
        self.queued = self.done = 0
        self.sent: list[int] = []
        """`done` at each copy to the device."""
        self._queue: deque[Callable[[], object]] = deque()

    def queue(self, work: Callable[[], object]) -> None:
        """Queue work on the device."""
        self._queue.append(work)
        self.queued += 1

    @torch.inference_mode()
    def run_until(self, place: int) -> None:
        while self.done < place:
            self._queue.popleft()()
            self.done += 1

    def allocate(self, size: int) -> Tensor:
        self.allocated.append(size)
        return torch.full((size,), GARBAGE, dtype=torch.uint8)

    def submit(self, copy: Callable[[], object]) -> Any:
        assert not self.closed
        future = LateCopy(copy)
        if not self.late:
            future.result()
        return future

    def send(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], FakeEvent]:
        self.sent.append(self.done)
        moved = [torch.full_like(tensor, GARBAGE) for tensor in tensors]
        for target, source in zip(moved, tensors):
            self.queue(partial(target.copy_, source))
        if self.computes:
            self.run_until(self.queued)
        return moved, self.mark()

    def fetch(self, tensor: Tensor) -> HostCopy:
        copy = torch.full_like(tensor, GARBAGE)
        self.queue(partial(copy.copy_, tensor))
        return HostCopy(copy, self.mark())

    def mark(self) -> FakeEvent:
        return FakeEvent(self)

    def close(self) -> None:
        self.closed = True
