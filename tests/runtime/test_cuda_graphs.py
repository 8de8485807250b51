"""CUDA graphs where there is no GPU: calls of the function itself, and failed captures.

Captured results: tests/gpu.
"""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hiera_video.runtime import cuda_graphs
from hiera_video.runtime.cuda_graphs import GraphedForward


def test_a_cpu_calls_the_function() -> None:
    graphed = GraphedForward(lambda tensor: {"twice": 2 * tensor})
    assert graphed(torch.ones(2))["twice"].tolist() == [2.0, 2.0]
    assert not graphed.captured


class FakeTensor:
    """Stands for a tensor on a GPU."""

    is_cuda, shape, dtype, device = True, (2,), torch.float32, "cuda"

    def __init__(self) -> None:
        self.content = "first"

    def clone(self) -> FakeTensor:
        return FakeTensor()

    def copy_(self, other: FakeTensor) -> None:
        self.content = other.content


class FakeCuda:
    """Records what happens on the fake GPU; replaces `torch.cuda` in the module."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capture_fails: bool) -> None:
        self.events: list[str] = []
        stream = SimpleNamespace(wait_stream=lambda other: None)
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: _Nothing())
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=self._replay))
        fails = capture_fails
        monkeypatch.setattr(torch.cuda, "graph", lambda graph, **options: _Capture(self, fails))

    def _replay(self) -> None:
        self.events.append("replay")


class _Nothing:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


class _Capture(_Nothing):
    def __init__(self, cuda: FakeCuda, fails: bool) -> None:
        self.cuda, self.fails = cuda, fails

    def __enter__(self) -> None:
        self.cuda.events.append("capture")

    def __exit__(self, *error: object) -> None:
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel …")


def test_a_shape_is_captured_once_and_then_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch, capture_fails=False)

    def function(tensor: Any) -> dict[str, str]:
        cuda.events.append("call")
        return {"content": tensor.content}

    graphed: Any = GraphedForward(function)
    first, second = FakeTensor(), FakeTensor()
    graphed(first)
    assert cuda.events == ["call"] * cuda_graphs.WARM_UP_CALLS + ["capture", "call", "replay"]
    graphed(second)
    assert cuda.events[-2:] == ["replay", "replay"] and graphed.captured


def test_after_a_failed_capture_the_function_is_called(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    FakeCuda(monkeypatch, capture_fails=True)
    graphed: Any = GraphedForward(lambda tensor: "result")
    with caplog.at_level(logging.WARNING):
        assert graphed(FakeTensor()) == graphed(FakeTensor()) == "result"
    assert not graphed.captured
    assert [record.message for record in caplog.records] == [
        "without CUDA graphs: capture failed: operation not permitted when stream is capturing"
    ]


def test_capture_keeps_no_casted_weights_of_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    # they are freed when autocast ends, and a replay would read the freed memory
    FakeCuda(monkeypatch, capture_fails=False)
    caches: list[tuple[bool, bool]] = []

    def function(tensor: Any) -> str:
        caches.append((torch.is_autocast_enabled("cuda"), torch.is_autocast_cache_enabled()))
        return "result"

    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    with torch.autocast("cuda", dtype=torch.float16):
        graphed: Any = GraphedForward(function)
        graphed(FakeTensor())
        assert torch.is_autocast_cache_enabled()
    assert caches == [(True, False)] * (cuda_graphs.WARM_UP_CALLS + 1)
