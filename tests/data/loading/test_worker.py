"""The loop of a worker process, run in this process with a simulated pipe."""

from __future__ import annotations

import os
import pickle
from typing import Any

import pytest

from hiera_video.data.loading.quarantine import OnOpen
from hiera_video.data.loading.worker import serve
from hiera_video.errors import DecodeError


class SimulatedPipe:
    """A worker's end of the pipe: tasks, and between them numbers of polls without one."""

    def __init__(self, *steps: Any) -> None:
        self.steps = list(steps)
        self.sent: list[Any] = []

    def poll(self, timeout: float) -> bool:
        if isinstance(self.steps[0], int) and self.steps[0] > 0:
            self.steps[0] -= 1
            return False
        return True

    def recv_bytes(self) -> bytes:
        while isinstance(self.steps[0], int):
            self.steps.pop(0)
        return (0).to_bytes(8, "little") + pickle.dumps(self.steps.pop(0))

    def send_bytes(self, data: Any) -> None:
        self.sent.append(pickle.loads(bytes(data)[8:]))


def read(item: str, on_open: OnOpen) -> str:
    on_open(item)
    if item == "bug":
        raise KeyError(item)
    return item.upper()


def test_a_worker_replies_to_each_item() -> None:
    pipe = SimulatedPipe(("a", {}), ("b", {"b": "hung"}), ("bug", {}), None)
    serve(read, pipe, None)
    opening_a, result_a, error_b, opening_bug, error_bug = pipe.sent
    assert (opening_a, result_a) == (("opening", "a"), ("result", "A"))
    assert error_b[0] == "error" and isinstance(error_b[1], DecodeError)
    assert error_b[1].reason == "hung"
    assert opening_bug == ("opening", "bug")
    assert error_bug[0] == "error" and isinstance(error_bug[1], RuntimeError)
    assert "in a loader worker:\nTraceback" in str(error_bug[1]) and "'bug'" in str(error_bug[1])


def test_an_idle_worker_waits_while_its_parent_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = SimulatedPipe(("a", {}), 3, ("b", {}), None)
    serve(read, pipe, os.getppid())
    assert [content for kind, content in pipe.sent if kind == "result"] == ["A", "B"]
    # a fork server's worker has another parent than the pool's process
    pipe = SimulatedPipe(("a", {}), 3, ("b", {}), None)
    monkeypatch.setattr(os, "getppid", lambda: 1)
    serve(read, pipe, None)
    assert [content for kind, content in pipe.sent if kind == "result"] == ["A", "B"]


def test_a_forked_worker_ends_when_its_parent_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = SimulatedPipe(("a", {}), 1, ("b", {}), None)
    monkeypatch.setattr(os, "getppid", lambda: 1)
    serve(read, pipe, 1234)
    assert [content for kind, content in pipe.sent if kind == "result"] == ["A"]


@pytest.mark.parametrize("error", [EOFError, OSError])
def test_a_worker_ends_when_the_pipe_ends(error: type[Exception]) -> None:
    class EndedPipe(SimulatedPipe):
        def recv_bytes(self) -> bytes:
            raise error

    serve(read, EndedPipe(("a", {})), None)
