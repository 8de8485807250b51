"""The pool's order, deadlines and replacements, with simulated workers and an injected clock."""

from __future__ import annotations

import pickle
import signal
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hiera_video.data.loading.faults import MAX_DEATHS
from hiera_video.data.loading.pool import (
    LOOK_SECONDS,
    MAX_EXTENSIONS,
    PAUSE_SECONDS,
    START_SECONDS,
    TASKS_PER_WORKER,
    WorkerPool,
)
from hiera_video.data.loading.quarantine import OnOpen, Quarantine, QuarantinePolicy
from hiera_video.errors import StorageError, WorkerError

HOUR = 3600.0
Event = tuple[float, Any]
"""(seconds after the previous event, message to the pool, or the exit code of a death)."""


class SimulatedWorker:
    """A worker process and its pipe: replies to each task with a script of events."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.tasks: list[Any] = []
        self.quarantined: list[dict[str, str]] = []
        self.events: deque[Event] = deque()  # (time, message), by the world's clock
        self.exitcode: int | None = None
        self.closed = False

    # -- the process

    def kill(self) -> None:
        self.exitcode = -signal.SIGKILL if self.exitcode is None else self.exitcode

    def join(self, timeout: float) -> None:
        pass

    def is_alive(self) -> bool:
        return self.exitcode is None

    # -- the pool's end of the pipe

    def send_bytes(self, data: Any) -> None:
        if self.exitcode is not None:
            raise BrokenPipeError
        task = pickle.loads(bytes(data)[8:])
        if task is None:
            self.exitcode = 0
            return
        item, quarantined = task
        self.tasks.append(item)
        self.quarantined.append(dict(quarantined))
        moment = max([self.world.now, *(moment for moment, _ in self.events)])
        for seconds, message in self.world.script(item, dict(quarantined)):
            moment += seconds
            self.events.append((moment, message))

    def recv_bytes(self) -> bytes:
        _, message = self.events.popleft()
        if isinstance(message, int):
            self.exitcode = message
            raise EOFError
        return (0).to_bytes(8, "little") + pickle.dumps(message)

    def close(self) -> None:
        self.closed = True


class World:
    """Simulated workers, the time, and the wait for messages."""

    def __init__(self, script: Callable[[Any, dict[str, str]], list[Event]]) -> None:
        self.script = script
        self.now = 0.0
        self.workers: list[SimulatedWorker] = []
        self.pauses: dict[float, float] = {}
        """Time → seconds for which everything is stopped then."""
        self.responds: Callable[[str], bool] = lambda path: True

    def start(self) -> tuple[SimulatedWorker, SimulatedWorker]:
        self.workers.append(SimulatedWorker(self))
        return self.workers[-1], self.workers[-1]

    def wait(self, connections: list[SimulatedWorker], timeout: float) -> list[SimulatedWorker]:
        """Advance to the first message, or by `timeout`."""
        coming = [worker.events[0][0] for worker in connections if worker.events]
        self.now = max(self.now, min([*coming, self.now + timeout]))
        for moment in [moment for moment in self.pauses if moment <= self.now]:
            seconds = self.pauses.pop(moment)
            self.now += seconds
            for worker in connections:
                worker.events = deque((when + seconds, what) for when, what in worker.events)
        return [
            worker for worker in connections if worker.events and worker.events[0][0] <= self.now
        ]

    def pool(self, workers: int = 1, **policy: Any) -> WorkerPool[Any, Any]:
        return WorkerPool(
            lambda item, on_open: item,
            workers=workers,
            quarantine=QuarantinePolicy(**policy),
            start=self.start,
            wait=self.wait,
            clock=lambda: self.now,
            responds=self.responds,
        )


def reading(path: str, seconds: float, result: Any) -> list[Event]:
    return [(0.0, ("opening", path)), (seconds, ("result", result))]


def hang_at(bad: str, seconds: float = 1.0) -> Callable[[Any, dict[str, str]], list[Event]]:
    """Read each item in `seconds`, and hang in one file until it is quarantined."""

    def script(path: str, quarantined: dict[str, str]) -> list[Event]:
        return reading(path, HOUR if path == bad and bad not in quarantined else seconds, path)

    return script


def test_results_keep_the_order_and_few_items_are_read_ahead() -> None:
    world = World(lambda item, _: reading(f"{item}.mp4", 10.0 - item, item**2))
    pool = world.pool(workers=2)
    taken: list[int] = []
    results = pool.results(taken.append(item) or item for item in range(9))  # type: ignore[func-returns-value]
    for item in range(9):
        assert next(results) == item**2
        assert len(taken) == min(item + 1 + 2 * TASKS_PER_WORKER, 9)
    assert next(results, None) is None
    pool.close()
    assert [worker.exitcode for worker in world.workers] == [0, 0]


def test_an_error_is_raised_when_its_item_is_due() -> None:
    def script(item: int, _: dict[str, str]) -> list[Event]:
        return [(1.0, ("error", KeyError("two")) if item == 2 else ("result", item))]

    results = World(script).pool(workers=3).results(range(4))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(KeyError, match="two"):
        next(results)


def test_a_worker_is_killed_at_the_deadline_and_its_file_quarantined(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = str(tmp_path / "run" / "quarantine.jsonl")
    world = World(hang_at("b"))
    results = world.pool(deadline_seconds=60.0, file=file).results("abc")
    assert next(results) == "a" and world.now == 1.0
    assert next(results) == "b" and world.now == 1.0 + 60.0 + 1.0
    first, second = world.workers
    assert first.exitcode == -signal.SIGKILL and first.closed
    assert second.tasks == ["b", "c"] and second.quarantined[0] == {"b": "hung"}
    assert caplog.messages == [
        "b: kept a worker busy for more than data.deadline_seconds=60; it was killed; skipped from "
        "now on"
    ]
    assert Quarantine(file).reasons == {"b": "hung"}


def test_the_deadline_is_for_each_file_not_for_the_item() -> None:
    def script(item: int, _: dict[str, str]) -> list[Event]:
        parts = [reading(f"{item}/{part}.mp4", 50.0, None)[0] for part in range(4)]
        return [(50.0, message) for _, message in parts] + [(50.0, ("result", item))]

    world = World(script)
    assert next(world.pool(deadline_seconds=60.0).results([7])) == 7
    assert len(world.workers) == 1 and world.now == 250.0


def test_a_new_worker_has_time_to_start() -> None:
    def script(item: int, _: dict[str, str]) -> list[Event]:
        slow_start = 0.0 if item else START_SECONDS - 1
        return [(slow_start, ("opening", "a.mp4")), (1.0, ("result", item))]

    world = World(script)
    assert list(world.pool(deadline_seconds=5.0).results(range(3))) == [0, 1, 2]
    assert len(world.workers) == 1


def test_two_workers_that_hang_in_one_file_quarantine_it_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(hang_at("a"))
    assert list(world.pool(workers=2, deadline_seconds=10.0).results("aab")) == ["a", "a", "b"]
    assert len(world.workers) == 4 and len(caplog.messages) == 1


@pytest.mark.parametrize("stopped", [100.0, 10_000.0])
def test_time_in_which_all_processes_are_stopped_does_not_count(stopped: float) -> None:
    world = World(lambda item, _: reading(f"{item}.mp4", 30.0, item))
    world.pauses[10.0] = stopped
    assert list(world.pool(workers=2, deadline_seconds=60.0).results(range(4))) == [0, 1, 2, 3]
    assert len(world.workers) == 2 and world.now == stopped + 60.0


def test_time_in_which_the_pool_does_not_look_does_not_count() -> None:
    world = World(hang_at("c", seconds=30.0))
    pool = world.pool(workers=1, deadline_seconds=60.0)
    results = pool.results("abc")
    assert next(results) == "a"
    assert next(results) == "b"
    world.now += PAUSE_SECONDS + 500  # a long training step: the pool notices nothing
    resumed = world.now
    assert next(results) == "c"
    assert 0 <= world.now - (resumed + 60.0 + 30.0) <= LOOK_SECONDS


def test_a_crash_is_retried_once_and_the_file_then_quarantined(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def script(path: str, quarantined: dict[str, str]) -> list[Event]:
        if path == "b" and "b" not in quarantined:
            return [(0.0, ("opening", "b")), (1.0, -signal.SIGSEGV)]
        return reading(path, 1.0, path)

    world = World(script)
    assert list(world.pool().results("abc")) == ["a", "b", "c"]
    assert [worker.exitcode for worker in world.workers[:2]] == [-signal.SIGSEGV] * 2
    assert caplog.messages == [
        "a loader worker died (SIGSEGV); restarting it",
        "b: ended a worker twice with SIGSEGV; skipped from now on",
    ]


def killed_at(*bad: str) -> Callable[[Any, dict[str, str]], list[Event]]:
    """Kill the worker at each file of an item that is in `bad` and not quarantined."""

    def script(item: str, quarantined: dict[str, str]) -> list[Event]:
        events: list[Event] = []
        for path in item:
            events.append((0.0, ("opening", path)))
            if path in bad and path not in quarantined:
                return [*events, (1.0, -signal.SIGKILL)]
        return [*events, (1.0, ("result", item))]

    return script


def test_a_killed_worker_is_replaced_and_quarantines_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    deaths = iter([-signal.SIGKILL, 0])

    def script(path: str, quarantined: dict[str, str]) -> list[Event]:
        assert not quarantined
        death = next(deaths, None) if path in "bc" else None
        opening: Event = (0.0, ("opening", "same.mp4"))
        return [opening, (1.0, death or ("result", path))]

    assert list(World(script).pool(workers=2).results("abc")) == ["a", "b", "c"]
    assert caplog.messages == ["a loader worker died (SIGKILL); restarting it"]


def test_a_file_at_which_workers_are_killed_is_quarantined_whatever_the_signal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Issue I, 4.8: the kernel kills workers at their memory limit with SIGKILL."""
    file = str(tmp_path / "quarantine.jsonl")
    world = World(killed_at("x", "y", "z"))
    results = world.pool(file=file).results(["axbyczd", "e"])
    assert next(results) == "axbyczd"  # six deaths on one item
    assert len(world.workers) == 7
    assert caplog.messages[:2] == [
        "a loader worker died (SIGKILL); restarting it",
        "x: ended a worker twice with SIGKILL, perhaps for lack of memory; skipped from now on",
    ]
    assert Quarantine(file).reasons == dict.fromkeys("xyz", "crashed")
    # a restart skips the files
    again = World(killed_at("x", "y", "z"))
    assert list(again.pool(file=file).results(["axbyczd"])) == ["axbyczd"]
    assert len(again.workers) == 1


def test_files_are_not_quarantined_if_workers_are_killed_at_all_of_them(tmp_path: Path) -> None:
    """The machine is short of memory, not the files at fault."""
    file = str(tmp_path / "quarantine.jsonl")
    results = World(killed_at(*"abcdefgh")).pool(file=file).results(["abcdefgh"])
    with pytest.raises(
        WorkerError,
        match=r"^loader workers died twice at each of 5 files in a row, the last with SIGKILL "
        r"reading e; if memory is short, lower data.workers or train.batch_size$",
    ):
        next(results)
    assert not Path(file).exists()


def test_a_worker_whose_storage_does_not_respond_gets_more_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Issue I, 4.6: both workers wait for the disk, for longer than the deadline."""
    file = tmp_path / "quarantine.jsonl"
    world = World(lambda item, _: reading(f"{item}.mp4", 150.0, item))
    world.responds = lambda path: False
    pool = world.pool(workers=2, deadline_seconds=60.0, file=str(file))
    assert list(pool.results(range(4))) == [0, 1, 2, 3]
    assert len(world.workers) == 2 and not file.exists()
    assert caplog.messages[0] == "0.mp4: its storage does not respond; waiting"
    assert len(caplog.messages) == 8


def test_storage_that_has_just_returned_leaves_workers_another_deadline() -> None:
    """The second worker's read goes on only when the storage is back."""
    world = World(lambda item, _: reading(f"{item}.mp4", 100.0, item))
    answers = iter([False, True])
    world.responds = lambda path: next(answers)
    pool = world.pool(workers=2, deadline_seconds=60.0)
    assert list(pool.results(range(2))) == [0, 1] and next(answers, None) is None
    assert len(world.workers) == 2
    # a file that hangs all the same is quarantined later
    world = World(hang_at("a"))
    answers = iter([False, True, True])
    world.responds = lambda path: next(answers)
    assert list(world.pool(deadline_seconds=60.0).results("a")) == ["a"]
    assert world.now == 3 * 60.0 + 1.0


def test_storage_that_stays_away_stops_the_run(tmp_path: Path) -> None:
    file = tmp_path / "quarantine.jsonl"
    world = World(hang_at("a"))
    world.responds = lambda path: False
    pool = world.pool(deadline_seconds=60.0, file=str(file))
    with pytest.raises(
        StorageError,
        match=r"^a: the storage fails \(it does not respond\); check that the disk with the videos "
        r"is mounted, and data.root, then run the same command again$",
    ):
        next(pool.results("a"))
    assert world.now == (MAX_EXTENSIONS + 1) * 60.0 and not file.exists()


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([(0.0, -signal.SIGKILL)], "with SIGKILL before opening a file"),
        ([(0.0, ("opening", "a.mp4")), (0.0, 1)], "with exit code 1 reading a.mp4"),
        ([(HOUR, ("opening", "a.mp4"))], "with SIGKILL before opening a file"),  # it never starts
    ],
)
def test_an_item_that_costs_many_workers_stops_the_run(events: list[Event], words: str) -> None:
    results = World(lambda *_: list(events)).pool(workers=2).results(range(9))
    with pytest.raises(
        WorkerError,
        match=rf"^{MAX_DEATHS} loader workers died on one batch, the last {words}; if memory is "
        "short, lower data.workers or train.batch_size",
    ):
        next(results)


def test_closing_kills_busy_workers_and_asks_idle_ones() -> None:
    world = World(lambda item, _: reading(f"{item}.mp4", HOUR if item else 1.0, item))
    pool = world.pool(workers=3, deadline_seconds=2 * HOUR)
    results = pool.results([0, 1])
    assert next(results) == 0
    pool.close()
    assert sorted(worker.exitcode or 0 for worker in world.workers) == [-signal.SIGKILL, 0, 0]
    assert all(worker.closed for worker in world.workers)


# -- real processes --------------------------------------------------------------------------------


def square(item: int, on_open: OnOpen) -> torch.Tensor:
    if item == 7:
        raise KeyError("seven")
    return torch.full((1000, item), item**2)


def test_real_workers_send_tensors_and_tracebacks() -> None:
    pool = WorkerPool(square, workers=3, quarantine=QuarantinePolicy(), context="fork")
    results = pool.results(range(9))
    for item in range(7):
        assert torch.equal(next(results), torch.full((1000, item), item**2))
    with pytest.raises(
        RuntimeError,
        match=r"in a loader worker:\nTraceback [\s\S]*in square\n[\s\S]*KeyError: 'seven'",
    ):
        next(results)
    pool.close()
