"""Without workers, items are mapped in order and slow files are named in a warning."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiera_video.data.loading.map_videos import _map_in_process, map_videos
from hiera_video.data.loading.quarantine import OnOpen, Quarantine, QuarantinePolicy
from hiera_video.errors import DecodeError


class FakeTimer:
    """A timer that fires when the test says so."""

    running: list[FakeTimer] = []  # noqa: RUF012 (shared on purpose)

    def __init__(self, seconds: float, function: Callable[..., None], arguments: Any) -> None:
        self.seconds = seconds
        self.fire = lambda: function(*arguments)

    def start(self) -> None:
        FakeTimer.running.append(self)

    def cancel(self) -> None:
        FakeTimer.running.remove(self)


def test_a_slow_file_is_named_in_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    def read(item: int, on_open: OnOpen) -> int:
        on_open("quick.mp4")
        on_open(f"{item}.mp4")
        if item == 1:
            (timer,) = FakeTimer.running  # the timer of the file before was stopped
            assert timer.seconds == 0.4
            timer.fire()
        return item

    policy = QuarantinePolicy(deadline_seconds=0.4)
    results: Any = _map_in_process(read, range(3), policy, timer=FakeTimer)  # type: ignore[arg-type]
    for item in range(3):
        assert next(results) == item
        assert not FakeTimer.running  # no timer runs between two items
    assert caplog.messages == [
        "1.mp4: the decoder has been busy for more than data.deadline_seconds=0.4 and cannot be "
        "killed with data.workers=0; if it hangs, stop this process and restart with "
        "data.workers=1 or more, which quarantines such files"
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_results_are_in_order_and_quarantined_files_are_refused(
    tmp_path: Path, workers: int
) -> None:
    file = str(tmp_path / "quarantine.jsonl")
    Quarantine(file).add("3.mp4", "hung", "x")
    policy = QuarantinePolicy(file=file)
    results = map_videos(
        open_and_square, range(9), workers=workers, quarantine=policy, context="fork"
    )
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    with pytest.raises(DecodeError, match=r"3.mp4: kept a decoder busy beyond"):
        next(results)


def open_and_square(item: int, on_open: OnOpen) -> int:
    on_open(f"{item}.mp4")
    return item**2


def test_workers_yield_the_cores_to_their_parent() -> None:
    own, policy = os.nice(0), QuarantinePolicy()
    for workers, expected in ((0, own), (1, min(own + 10, 19))):  # 19 is the system's limit
        found = map_videos(niceness, [0], workers=workers, quarantine=policy, context="fork")
        assert list(found) == [expected]


def niceness(item: int, on_open: OnOpen) -> int:
    return os.nice(0)
