"""CUDA graphs, emulated where there is no GPU; on one: tests/gpu."""

from __future__ import annotations

import gc
import logging
from typing import Any

import pytest
import torch
from graph_emulator import EmulatedGraph
from torch import Tensor, nn

from hiera_video.runtime import cuda_graphs
from hiera_video.runtime.cuda_graphs import (
    WARM_UP_CALLS,
    CaptureError,
    GraphedBackward,
    GraphedForward,
)

Graphs = list[EmulatedGraph]
FAILED = ["without CUDA graphs: capture failed: operation not permitted when stream is capturing"]


class Counted:
    """Counts the calls of a function."""

    def __init__(self, function: Any) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *tensors: Tensor) -> Any:
        self.calls += 1
        return self.function(*tensors)


def pass_of(layers: nn.Module) -> Any:
    """Return a function that adds to the gradients, and returns a loss and a number."""

    def forward_backward(clips: Tensor, weights: Tensor) -> dict[str, tuple[Tensor, int]]:
        loss = (layers(clips).square().mean(dim=1) * weights).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return {"loss": (loss.detach(), len(clips))}

    return forward_backward


def layers() -> nn.Sequential:
    """Return two layers, of which the first is used twice, and one that nothing uses."""
    torch.manual_seed(0)
    linear, unused = nn.Linear(4, 4), nn.Linear(4, 4)

    class Model(nn.Sequential):
        def forward(self, clips: Tensor) -> Tensor:
            return linear(linear(clips).tanh())  # type: ignore[no-any-return]

    return Model(linear, unused)


def inputs(seed: int, count: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4, generator=generator), torch.rand(count, generator=generator)


def test_a_cpu_calls_the_function() -> None:
    graphed = GraphedForward(lambda tensor: {"twice": 2 * tensor})
    assert graphed(torch.ones(2))["twice"].tolist() == [2.0, 2.0]
    assert not graphed.captured


def test_a_shape_is_captured_once_and_then_replayed(emulated_graphs: Graphs) -> None:
    function = Counted(lambda tensor: {"twice": [2 * tensor]})
    graphed = GraphedForward(function)
    first, second = (graphed(torch.tensor([value]))["twice"][0] for value in (1.0, 5.0))
    assert (first.item(), second.item()) == (2.0, 10.0)  # a result outlasts the next call
    assert function.calls == WARM_UP_CALLS + 1 and graphed.captured
    assert graphed(torch.ones(3))["twice"][0].tolist() == [2.0] * 3
    assert function.calls == 2 * (WARM_UP_CALLS + 1)
    assert [graph.replays for graph in emulated_graphs] == [2, 1]


@pytest.mark.parametrize(
    "read", [Tensor.item, lambda tensor: torch.rand(1), lambda tensor: torch.tensor([0.5])]
)
def test_after_a_failed_capture_the_function_is_called(
    read: Any,
    emulated_graphs: Graphs,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Reads on the host, random numbers and tensors of the host's numbers have no place in it."""

    def function(tensor: Tensor) -> Tensor:
        read(tensor)
        return 2 * tensor

    graphed = GraphedForward(function)
    with caplog.at_level(logging.WARNING):
        assert [graphed(torch.tensor([value])).item() for value in (1.0, 5.0)] == [2.0, 10.0]
    assert not graphed.captured
    assert [record.message for record in caplog.records] == FAILED


def test_a_failed_capture_leaves_the_stream_and_the_collector(emulated_graphs: Graphs) -> None:
    GraphedForward(lambda tensor: tensor * torch.rand(1))(torch.ones(1))
    assert gc.isenabled()
    assert GraphedForward(lambda tensor: 2 * tensor)(torch.ones(1)).item() == 2
    assert [graph.replays for graph in emulated_graphs] == [0, 1]


def test_each_precision_of_autocast_has_a_graph(emulated_graphs: Graphs) -> None:
    layer, ones = nn.Linear(2, 2), torch.ones(1, 2)
    graphed = GraphedForward(layer)
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float32):
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            assert graphed(ones).dtype == dtype
    assert [graph.replays for graph in emulated_graphs] == [2, 1, 1]


def test_capture_keeps_no_casted_weights_of_autocast(emulated_graphs: Graphs) -> None:
    # they are freed when autocast ends, and a replay would read the freed memory
    caches: list[tuple[bool, bool]] = []

    def function(tensor: Tensor) -> Tensor:
        caches.append((torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()))
        return tensor + 1

    with torch.autocast("cpu", dtype=torch.bfloat16):
        GraphedForward(function)(torch.ones(1))
        assert torch.is_autocast_cache_enabled()
    assert caches == [(True, False)] * (cuda_graphs.WARM_UP_CALLS + 1)


def test_gradients_of_a_graph_equal_those_of_the_function(
    emulated_graphs: Graphs,
) -> None:
    """Over steps of two micro-batches, with gradients that the optimizer sets to None or zero."""
    models = [layers(), layers()]
    plain, captured = map(pass_of, models)
    counted = Counted(captured)
    graphed = GraphedBackward(counted, models[1].parameters())
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
    for step in range(4):
        for part in (0, 1):
            tensors = inputs(2 * step + part)
            expected, actual = plain(*tensors), graphed(*tensors)
            assert torch.equal(actual["loss"][0], expected["loss"][0]) and actual["loss"][1] == 3
            grads = [[weight.grad for weight in model.parameters()] for model in models]
            assert all(
                one is other if other is None else torch.equal(one, other)  # type: ignore[arg-type]
                for one, other in zip(*grads, strict=True)
            )
            assert grads[1][2] is None  # of the layer that nothing uses
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=step < 2)
    assert counted.calls == WARM_UP_CALLS + 1
    assert [graph.replays for graph in emulated_graphs] == [8]


@pytest.mark.parametrize("kind", [RuntimeError, torch.OutOfMemoryError])
def test_a_failed_capture_of_a_backward_pass_is_an_error(
    kind: type[RuntimeError], emulated_graphs: Graphs
) -> None:
    calls = []

    def function(tensor: Tensor) -> Tensor:
        calls.append(tensor)
        if len(calls) > WARM_UP_CALLS:
            raise kind("the cause\nand more lines")
        return tensor

    graphed = GraphedBackward(function, layers().parameters())
    error = CaptureError if kind is RuntimeError else torch.OutOfMemoryError
    with pytest.raises(error, match=r"^the cause"):
        graphed(torch.ones(1))
    assert not graphed.captured
