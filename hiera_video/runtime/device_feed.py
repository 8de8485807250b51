"""Feed batches to a GPU while it computes, and read results back without waiting for each.

    loader ──▶ pinned memory, filled by a thread ──▶ GPU, on a stream of its own ──▶ model
               one batch ahead                       while the GPU computes

The pinned memory is two buffers that are used in turn. Registering the workers' shared memory with
CUDA instead would save the thread's copy. But each batch comes in new memory, registering it takes
about as long as copying it, and the amount of pinned memory would grow with the workers.

The thread copies memory and makes no CUDA call; those are all made by the caller's thread. On the
CPU there is no thread, and nothing is read ahead.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

ALIGNMENT = 64
Batch = TypeVar("Batch")
Item = TypeVar("Item")
Part = Tensor | Sequence[Tensor]
"""Source of one tensor on the device: a tensor, or tensors of one shape that are stacked."""


class CopyEvent(Protocol):
    """A point in a device's queue of work."""

    def synchronize(self) -> None:
        """Wait until the device has reached it."""


@dataclass(frozen=True)
class HostCopy:
    """A tensor on its way to the CPU."""

    tensor: Tensor
    copied: CopyEvent | None

    def result(self) -> Tensor:
        """Wait for the tensor and return it."""
        if self.copied is not None:
            self.copied.synchronize()
        return self.tensor


class DeviceLink(Protocol):
    """The calls of a feed that need the device; tests replace them."""

    buffers: int
    """Buffers of a ring."""

    def allocate(self, size: int) -> Tensor:
        """Return a buffer of `size` bytes."""

    def submit(self, copy: Callable[[], object]) -> Future[Any] | None:
        """Run `copy` in a thread, or at once and return None."""

    def send(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], CopyEvent | None]:
        """Return `tensors` on the device, for the work that is queued next, and when they are."""

    def fetch(self, tensor: Tensor) -> HostCopy:
        """Copy the result of queued work to the CPU once it has been computed."""

    def mark(self) -> CopyEvent | None:
        """Return the point behind all work that has been queued."""

    def close(self) -> None:
        """End the thread."""


class CpuLink:
    """Tensors stay where they are."""

    buffers = 1

    def allocate(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8)

    def submit(self, copy: Callable[[], object]) -> None:
        copy()

    def send(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], None]:
        return list(tensors), None

    def fetch(self, tensor: Tensor) -> HostCopy:
        return HostCopy(tensor, None)

    def mark(self) -> None:
        return None

    def close(self) -> None:
        return None


class CudaLink:
    """Copies to a GPU on a stream of their own, from pinned memory that a thread fills."""

    buffers = 2

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device-feed")

    def allocate(self, size: int) -> Tensor:
        # torch rounds pinned memory up to a power of two anyway
        return torch.empty(1 << (size - 1).bit_length(), dtype=torch.uint8, pin_memory=True)

    def submit(self, copy: Callable[[], object]) -> Future[Any]:
        return self._thread.submit(copy)

    def send(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], torch.cuda.Event]:
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            moved = [tensor.to(self._device, non_blocking=True) for tensor in tensors]
            copied = self._stream.record_event()
        computing.wait_event(copied)
        for tensor in moved:
            # the allocator must not reuse its memory before `computing` is done with it
            tensor.record_stream(computing)
        return moved, copied

    def fetch(self, tensor: Tensor) -> HostCopy:
        # queued directly behind the work; when its result is wanted, other work would be in front
        return HostCopy(tensor.to("cpu", non_blocking=True), self.mark())

    def mark(self) -> torch.cuda.Event:
        event: torch.cuda.Event = torch.cuda.current_stream(self._device).record_event()
        return event

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)


def device_link(device: torch.device) -> DeviceLink:
    """Return the link to `device`."""
    return CudaLink(device) if device.type == "cuda" else CpuLink()


@dataclass(eq=False)
class StagingBuffer:
    """A buffer of the ring and the batch that it holds."""

    memory: Tensor | None = None
    tensors: list[Tensor] = field(default_factory=list)
    """Views of the memory."""
    filling: list[Future[Any]] = field(default_factory=list)
    """Copies into it by the thread."""
    sent: CopyEvent | None = None
    """End of the last copy from it."""

    def write(self, copy: Callable[[], object], link: DeviceLink) -> None:
        """Submit `copy`, which writes into the tensors."""
        if (filling := link.submit(copy)) is not None:
            self.filling.append(filling)

    def wait(self) -> None:
        """Wait until the buffer has been filled, and raise what went wrong."""
        filling, self.filling = self.filling, []
        for copy in filling:
            copy.result()


class StagingRing:
    """Buffers that batches pass through on the way to a device, in turn.

    Args:
        link: The device.
    """

    def __init__(self, link: DeviceLink) -> None:
        self.link = link
        self._buffers = deque(StagingBuffer() for _ in range(link.buffers))
        self._before: CopyEvent | None = None

    def open(self, shapes: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> StagingBuffer:
        """Take the next buffer, whose contents are lost, for tensors of these shapes and dtypes."""
        buffer = self._buffers[0]
        self._buffers.rotate(-1)
        buffer.wait()
        if buffer.sent is not None:
            buffer.sent.synchronize()
        sizes = [math.prod(shape) * dtype.itemsize for shape, dtype in shapes]
        starts = [0]
        for size in sizes:
            starts.append(starts[-1] + -(-size // ALIGNMENT) * ALIGNMENT)
        with torch.inference_mode(False):  # the thread cannot write to inference tensors
            if buffer.memory is None or len(buffer.memory) < starts[-1]:
                buffer.memory = self.link.allocate(max(starts[-1], ALIGNMENT))
            buffer.tensors = [
                buffer.memory[start : start + size].view(dtype).view(shape)
                for start, size, (shape, dtype) in zip(starts, sizes, shapes)
            ]
        return buffer

    def send(self, buffer: StagingBuffer) -> list[Tensor]:
        """Return the tensors of a buffer on the device, ready for the work that is queued next.

        Waits until the device has finished the work on the batch before the last, so that its
        memory holds two batches however far ahead the caller is.
        """
        buffer.wait()
        if self._before is not None:
            self._before.synchronize()
        self._before = self.link.mark()
        moved, buffer.sent = self.link.send(buffer.tensors)
        return moved


@dataclass(frozen=True, eq=False)
class Transfer:
    """A batch on its way to the device. Call it when the work on the batch is queued.

    Returns:
        The tensors on the device, one for each part. On the CPU, stacked tensors lie in memory that
        the next batch reuses.
    """

    parts: Sequence[Part]
    take: Callable[[Transfer], list[Tensor]]

    def __call__(self) -> list[Tensor]:
        return self.take(self)


class DeviceFeed(Generic[Batch]):
    """Iterates over the batches of each step, with a `Transfer` of each to the device.

    On a GPU, the next step is read before a step is yielded, and while the work on a batch is
    queued, the batch behind it is copied to pinned memory. An exception of `steps` is raised in
    place of the step that it concerns.

    Args:
        steps: Yields the batches of one step after the other.
        device: Where the batches go.
        parts: Returns the tensors of a batch that go there; none for a batch that stays.
        link: The device; for tests.
    """

    def __init__(
        self,
        steps: Iterator[Sequence[Batch]],
        device: torch.device,
        parts: Callable[[Batch], Sequence[Part]],
        *,
        link: DeviceLink | None = None,
    ) -> None:
        self.link = link or device_link(device)
        self._steps, self._parts = steps, parts
        self._ring = StagingRing(self.link)
        self._read: deque[list[tuple[Batch, Transfer]]] = deque()
        self._end: Exception | None = None
        self._unstaged: deque[Transfer] = deque()
        self._staged: tuple[Transfer, StagingBuffer] | None = None

    @property
    def reads_ahead(self) -> bool:
        """True if a step is read before the one in front of it is yielded."""
        return self.link.buffers > 1

    def __iter__(self) -> DeviceFeed[Batch]:
        return self

    def __next__(self) -> list[tuple[Batch, Transfer]]:
        if not self._read:
            self._read_step()
        # beyond this step, read until there is a batch to stage
        while self.reads_ahead and self._end is None and not self._has_batch_ahead():
            self._read_step()
        if not self._read:
            assert self._end is not None
            raise self._end
        return self._read.popleft()

    def close(self) -> None:
        """End the thread and the loader."""
        self.link.close()
        self._read.clear()
        self._unstaged.clear()
        self._staged, self._end = None, StopIteration()
        close: Any = getattr(self._steps, "close", None)
        if close is not None:
            close()

    def _has_batch_ahead(self) -> bool:
        return any(transfer.parts for step in islice(self._read, 1, None) for _, transfer in step)

    def _read_step(self) -> None:
        if self._end is not None:
            return
        try:
            batches = next(self._steps)
        except Exception as error:  # StopIteration too
            self._end = error
            return
        step = [(batch, Transfer(self._parts(batch), self._take)) for batch in batches]
        self._read.append(step)
        if self.reads_ahead:
            self._unstaged.extend(transfer for _, transfer in step if transfer.parts)
            self._stage_next()

    def _stage_next(self) -> None:
        if self._staged is None and self._unstaged:
            self._stage(self._unstaged.popleft())

    def _stage(self, transfer: Transfer) -> StagingBuffer:
        parts = transfer.parts
        buffer = self._ring.open([_shape_of(part) for part in parts])
        tensors = buffer.tensors
        buffer.write(lambda: _fill(tensors, parts), self.link)
        self._staged = transfer, buffer
        return buffer

    def _take(self, transfer: Transfer) -> list[Tensor]:
        """Return the tensors of a batch on the device; in another order than read, too."""
        parts = transfer.parts
        if not self.reads_ahead and all(isinstance(part, Tensor) for part in parts):
            return list(parts)  # type: ignore[arg-type]
        if self._staged is not None and self._staged[0] is transfer:
            buffer = self._staged[1]
        else:
            if transfer in self._unstaged:
                self._unstaged.remove(transfer)
            buffer = self._stage(transfer)
        self._staged = None
        moved = self._ring.send(buffer)
        self._stage_next()
        return moved


def one_behind(items: Iterator[Item], *, lag: bool) -> Iterator[Item]:
    """Yield each item after the next one has been made, or at once without `lag`.

    While a GPU computes the newest item, the one before can be read. An exception of `items` is
    raised after all items that were made before it.
    """
    held = deque[Item]()
    try:
        for item in items:
            held.append(item)
            if len(held) > lag:
                yield held.popleft()
    except Exception:
        yield from held
        raise
    yield from held


def _shape_of(part: Part) -> tuple[tuple[int, ...], torch.dtype]:
    if isinstance(part, Tensor):
        return tuple(part.shape), part.dtype
    return (len(part), *part[0].shape), part[0].dtype


def _fill(tensors: Sequence[Tensor], parts: Sequence[Part]) -> None:
    for tensor, part in zip(tensors, parts):
        if isinstance(part, Tensor):
            tensor.copy_(part)
        else:
            torch.stack(list(part), out=tensor)
