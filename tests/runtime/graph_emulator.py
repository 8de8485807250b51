"""CUDA graphs without a GPU: a capture records torch's operations, and a replay repeats them.

As in a CUDA graph, a replay reads and writes the memory of the capture, runs no Python code, and so
repeats whatever the host chose in the capture. Reading a value on the host, making a tensor from
numbers of the host, and drawing random numbers end a capture with an error.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hiera_video.models import tokens
from hiera_video.runtime import cuda_graphs

ATEN = torch.ops.aten
FORBIDDEN = (ATEN.item.default, ATEN._local_scalar_dense.default, ATEN.lift_fresh.default)


class EmulatedGraph(TorchDispatchMode):
    """Stands for `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Any], Any, Any, list[Tensor]]] = []
        self.replays = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run and record an operation."""
        random = torch.Tag.nondeterministic_seeded in function.tags and "attention" not in str(
            function
        )
        if function in FORBIDDEN or random:
            raise RuntimeError(f"operation not permitted when stream is capturing\n{function}")
        result = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, _tensors(result)))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        """Repeat the operations in the memory of the capture."""
        self.replays += 1
        for function, args, kwargs, results in self.calls:
            memory = {_memory(tensor) for tensor in _tensors((args, kwargs))}
            for result, value in zip(results, _tensors(function(*args, **kwargs)), strict=True):
                if _memory(result) not in memory:  # neither a view nor written in place
                    result.copy_(value)


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def emulate_graphs(monkeypatch: pytest.MonkeyPatch) -> list[EmulatedGraph]:
    """Let the CPU capture graphs, and return those that were."""
    graphs: list[EmulatedGraph] = []

    def make_graph() -> EmulatedGraph:
        graphs.append(EmulatedGraph())
        return graphs[-1]

    @contextmanager
    def capture(graph: EmulatedGraph, *, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local" and not gc.isenabled()
        streams.append("capture's")
        try:
            with graph:
                yield
        except RuntimeError:  # as at the end of a capture that a call has made invalid
            raise RuntimeError("operation failed due to a previous error during capture")  # noqa: B904

    stream = SimpleNamespace(wait_stream=lambda other: None)
    streams: list[Any] = [stream]  # a failed capture leaves its own as the current one

    def current_stream(device: torch.device) -> Any:
        assert streams[-1] is stream
        return stream

    for name, value in {
        "CUDAGraph": make_graph,
        "graph": capture,
        "Stream": lambda device: stream,
        "current_stream": current_stream,
        "set_stream": streams.append,
        "stream": lambda stream: nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(cuda_graphs, "_on_gpu", lambda *tensors: True)
    monkeypatch.setattr(tokens, "_is_capturing_graph", lambda keep: True)
    return graphs
