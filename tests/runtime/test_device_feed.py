"""Batches reach the device in order and intact, one step ahead; errors come in their place."""

from __future__ import annotations

import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest
import torch
from fake_link import FakeLink
from torch import Tensor

from hiera_video.errors import DecodeError
from hiera_video.runtime.device_feed import DeviceFeed, StagingRing, device_link, one_behind

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
Parts = list[Tensor | list[Tensor]]


def make_batch(number: int) -> Parts:
    """Return tensors that depend on the number, one to stack; later ones fit the same memory."""
    generator = torch.Generator().manual_seed(number)
    clips = torch.randint(0, 255, (700 - 37 * number,), generator=generator, dtype=torch.uint8)
    views = [torch.randn(3, 4 + number % 2, generator=generator)[:, ::2] for _ in range(2)]
    return [clips, views, torch.tensor([number, -number])]


def expected(number: int) -> list[Tensor]:
    clips, views, labels = make_batch(number)
    assert isinstance(clips, Tensor) and isinstance(labels, Tensor)
    return [clips, torch.stack(list(views)), labels]


def assert_same(found: Sequence[Tensor], number: int) -> None:
    for tensor, other in zip(found, expected(number), strict=True):
        assert tensor.dtype == other.dtype and torch.equal(tensor.cpu(), other), number


def numbered_steps(count: int, size: int, read: list[int]) -> Iterator[list[int]]:
    """Yield steps of `size` numbers; a step's number is appended to `read` when it is read."""
    for step in range(count):
        read.append(step)
        yield [step * size + place for place in range(size)]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("size", [1, 3])
def test_batches_arrive_intact_and_in_order(size: int, late: bool) -> None:
    """The fake device runs its queue as late as possible, the thread early or late."""
    link, read, found = FakeLink(late=late), list[int](), dict[int, list[Tensor]]()
    feed = DeviceFeed(numbered_steps(6, size, read), GPU, make_batch, link=link)

    def keep(number: int, tensors: list[Tensor]) -> None:
        found[number] = [tensor.clone() for tensor in tensors]

    for step, batches in enumerate(feed):
        assert len(read) == min(step + 2, 6)  # one step ahead
        assert [number for number, _ in batches] == [step * size + i for i in range(size)]
        for number, transfer in batches:
            link.queue(partial(keep, number, transfer()))
    assert len(found) < 6 * size  # the device is behind
    link.run_until(link.queued)
    assert list(found) == list(range(6 * size))
    for number, tensors in found.items():
        assert_same(tensors, number)


def test_the_device_holds_two_batches() -> None:
    """Before a batch is sent, the work on the one before the last has been done."""
    link, done = FakeLink(), list[int]()
    feed = DeviceFeed(numbered_steps(5, 1, []), GPU, make_batch, link=link)
    for ((number, transfer),) in feed:
        transfer()
        assert done == list(range(number - 1))
        link.queue(partial(done.append, number))


def test_the_ring_has_two_buffers_that_grow() -> None:
    link = FakeLink()
    ring = StagingRing(link)
    sizes = [(100,), (64,), (100,), (65,), (300,)]
    for size in sizes:
        ring.send(ring.open([(size, torch.uint8)]))
    # rounded up to 64 bytes; the third and the fourth fit or replace the buffers of the first two
    assert link.allocated == [128, 64, 128, 320]


def test_a_buffer_starts_every_tensor_at_a_multiple_of_64_bytes() -> None:
    ring = StagingRing(FakeLink())
    buffer = ring.open([((3,), torch.uint8), ((2, 5), torch.float32), ((), torch.int64)])
    assert buffer.memory is not None and len(buffer.memory) == 192
    first = buffer.memory.data_ptr()
    assert [tensor.data_ptr() - first for tensor in buffer.tensors] == [0, 64, 128]
    assert [tensor.shape for tensor in buffer.tensors] == [(3,), (2, 5), ()]
    assert not any(tensor.is_inference() for tensor in buffer.tensors)


class ThreadLink(FakeLink):
    """A fake device with a real thread."""

    thread = ThreadPoolExecutor(1)

    def submit(self, copy: Callable[[], object]) -> Future[object]:
        return self.thread.submit(copy)


@pytest.mark.parametrize("make_link", [FakeLink, ThreadLink])
def test_buffers_of_evaluation_can_be_used_in_training(make_link: type[FakeLink]) -> None:
    with torch.inference_mode():
        ring = StagingRing(make_link(computes=True))
        buffer = ring.open([((2, 3), torch.float32)])
        views = [torch.ones(3), torch.ones(3)]
        buffer.write(partial(torch.stack, views, out=buffer.tensors[0]), ring.link)
        buffer.write(partial(buffer.tensors[0][0].copy_, torch.full((3,), 5.0)), ring.link)
        (moved,) = ring.send(buffer)
        assert moved.tolist() == [[5.0] * 3, [1.0] * 3]
    weight = torch.ones(4, requires_grad=True)
    for _ in range(2):
        buffer = ring.open([((4,), torch.float32)])
        buffer.write(partial(buffer.tensors[0].fill_, 2.0), ring.link)
        (moved,) = ring.send(buffer)
        (moved * weight).sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [4.0] * 4


def test_an_error_of_the_loader_comes_in_its_place() -> None:
    def steps() -> Iterator[list[int]]:
        yield [0]
        yield [1]
        raise DecodeError("b.mp4: no such file", reason="missing")  # this line

    link = FakeLink()
    feed = DeviceFeed(steps(), GPU, make_batch, link=link)
    for number in (0, 1):
        ((_, transfer),) = next(feed)
        moved = transfer()
        link.run_until(link.queued)
        assert_same(moved, number)
    with pytest.raises(DecodeError, match=r"^b\.mp4: no such file$") as caught:
        next(feed)
    assert traceback.extract_tb(caught.tb)[-1].line == (
        'raise DecodeError("b.mp4: no such file", reason="missing")  # this line'
    )


def test_an_interrupt_is_not_kept_for_later() -> None:
    def steps() -> Iterator[list[int]]:
        yield [0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(DeviceFeed(steps(), GPU, make_batch, link=FakeLink()))


def test_an_error_of_the_thread_comes_with_its_batch() -> None:
    def parts(number: int) -> Parts:
        good = torch.zeros(2)
        return [[good, torch.zeros(3) if number == 1 else good]]

    feed = DeviceFeed(iter([[0], [1]]), GPU, parts, link=ThreadLink())
    ((_, transfer),) = next(feed)
    assert transfer()[0].shape == (2, 2)
    ((_, transfer),) = next(feed)
    with pytest.raises(RuntimeError, match="stack expects each tensor to be equal size"):
        transfer()


def test_transfers_in_any_order() -> None:
    """A caller that skips batches, or takes one again, gets the right ones more slowly."""
    link = FakeLink()
    feed = DeviceFeed(numbered_steps(4, 3, []), GPU, make_batch, link=link)
    first, second = dict(next(feed)), dict(next(feed))
    for number in (2, 0, 4, 4, 3):
        moved = {**first, **second}[number]()
        link.run_until(link.queued)
        assert_same(moved, number)
    for batches in feed:
        for number, transfer in batches:
            moved = transfer()
            link.run_until(link.queued)
            assert_same(moved, number)


def test_the_batch_behind_an_empty_step_is_staged() -> None:
    """Empty steps mark the ends of shards."""
    link = FakeLink()
    steps = iter([[0], [-1], [-1], [1], [-1]])
    feed = DeviceFeed(
        steps, GPU, lambda number: [] if number < 0 else make_batch(number), link=link
    )
    ((_, transfer),) = next(feed)
    transfer()
    assert len(link.allocated) == 2  # batch 1 has its buffer already
    assert [number for ((number, _),) in feed] == [-1, -1, 1, -1]


def test_closing_ends_the_thread_and_the_loader() -> None:
    closed = []

    def steps() -> Iterator[list[int]]:
        try:
            yield from numbered_steps(9, 1, [])
        finally:
            closed.append(True)

    link = FakeLink()
    feed = DeviceFeed(steps(), GPU, make_batch, link=link)
    next(feed)
    feed.close()
    assert closed == [True] and link.closed
    assert list(feed) == []
    feed.close()


def test_on_the_cpu_nothing_is_copied_or_read_ahead() -> None:
    read, tensor = list[int](), torch.zeros(3)
    feed = DeviceFeed(numbered_steps(3, 1, read), CPU, lambda number: [tensor])
    assert not feed.reads_ahead
    for step in range(3):
        ((number, transfer),) = next(feed)
        assert len(read) == step + 1 == number + 1
        assert transfer()[0] is tensor
    assert list(feed) == []


def test_on_the_cpu_stacked_tensors_share_one_buffer() -> None:
    feed = DeviceFeed(
        numbered_steps(3, 1, []), CPU, lambda number: [[torch.full((2,), number)] * 2]
    )
    taken = []
    for ((number, transfer),) in feed:
        (views,) = transfer()
        assert views.tolist() == [[number] * 2] * 2
        taken.append(views.data_ptr())
    assert len(set(taken)) == 1


def test_copies_to_the_host_wait_for_their_work() -> None:
    link, value = FakeLink(), torch.zeros(2)
    link.queue(partial(value.fill_, 3.0))
    copy = link.fetch(value)
    link.queue(partial(value.fill_, 4.0))
    assert copy.result().tolist() == [3.0, 3.0] and link.done == 2
    assert device_link(CPU).fetch(value).result() is value


def test_items_are_passed_on_one_behind() -> None:
    made = []

    def items() -> Iterator[int]:
        for number in range(3):
            made.append(number)
            yield number
        raise DecodeError("b.mp4: truncated", reason="truncated")

    for lag in (False, True):
        made.clear()
        passed = []
        with pytest.raises(DecodeError, match=r"b\.mp4: truncated"):
            passed.extend((number, len(made)) for number in one_behind(items(), lag=lag))
        assert passed == ([(0, 2), (1, 3), (2, 3)] if lag else [(0, 1), (1, 2), (2, 3)])


ABANDONED = """
import sys; sys.path[:0] = ["tests/runtime"]
from concurrent.futures import ThreadPoolExecutor
import torch
from fake_link import FakeLink
from hiera_video.runtime.device_feed import DeviceFeed
class Link(FakeLink):
    thread = ThreadPoolExecutor(1)
    def submit(self, copy):
        return self.thread.submit(copy)
device, steps = torch.device("cuda"), iter([[0], [1], [2]])
feed = DeviceFeed(steps, device, lambda _: [torch.zeros(9)], link=Link())
((_, transfer),) = next(feed)
transfer()
print("end")
raise SystemExit(7)
"""


@pytest.mark.slow
def test_a_feed_that_is_not_closed_does_not_hold_up_the_interpreter() -> None:
    command = [sys.executable, "-c", ABANDONED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (7, "end\n"), done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("size", [1, 3])
def test_batches_arrive_intact_on_a_gpu(size: int) -> None:
    """As on the fake device, with work that takes the GPU longer than the host."""

    def large(number: int) -> Parts:
        generator = torch.Generator().manual_seed(number)
        count = 3_000_000 + 100_001 * number
        clips = torch.randint(0, 255, (count,), generator=generator, dtype=torch.uint8)
        return [clips, [torch.full((3, 500, 500), float(number + place)) for place in range(4)]]

    feed = DeviceFeed(numbered_steps(8, size, []), GPU, large)
    busy, found = torch.randn(4096, 4096, device=GPU), list[Tensor]()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batches in feed:
            for _, transfer in batches:
                clips, views = transfer()
                for _ in range(3):
                    busy = (busy @ busy).clamp(-1, 1)
                weights = torch.arange(len(clips), device=GPU) % 1009
                found.append(torch.stack([(clips * weights).sum().double(), views.double().sum()]))
                del clips, views  # their memory is free for later batches
    finally:
        torch.cuda.set_sync_debug_mode("default")
        feed.close()
    assert len(found) == 8 * size
    for number, sums in enumerate(found):
        clips, views = large(number)
        assert isinstance(clips, Tensor)
        checksum = (clips * (torch.arange(len(clips)) % 1009)).sum()
        assert sums.tolist() == [float(checksum), float(torch.stack(list(views)).double().sum())]
