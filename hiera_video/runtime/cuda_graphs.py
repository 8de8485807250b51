"""CUDA graphs for inference: one launch for a whole forward pass of a fixed shape.

A small batch keeps a GPU busy for less time than the host takes to launch its kernels one by one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

logger = logging.getLogger(__name__)
WARM_UP_CALLS = 3
"""Calls before capture, in which torch compiles, chooses kernels and allocates their workspaces."""


class GraphedForward:
    """Calls a function of one tensor through a CUDA graph, captured for each shape and dtype.

    The function must do the same work for every tensor of a shape, read no value on the host, and
    draw no random numbers; the weights that it uses must stay where they are, and may change their
    values. Autocast belongs into the function: it keeps half-precision copies of the weights until
    its block ends, and the graph would use them afterwards. Where capture fails, and on a CPU, the
    function itself is called.

    Args:
        function: Maps a tensor to tensors, in lists, tuples and dicts or alone; its results are
            copied, so that they outlast the next call.
    """

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        self.function = function
        self.captured = False
        self._failed = False
        self._graphs: dict[Any, tuple[torch.cuda.CUDAGraph, Tensor, Any]] = {}

    @torch.inference_mode()
    def __call__(self, tensor: Tensor) -> Any:
        if not tensor.is_cuda or self._failed:
            return self.function(tensor)
        key = (tensor.shape, tensor.dtype, tensor.device)
        if key not in self._graphs:
            with _uncached_autocast(torch.device(tensor.device).type):
                captured = self._capture(tensor)
            if captured is None:
                return self.function(tensor)
            self._graphs[key] = captured
        graph, static_input, static_output = self._graphs[key]
        static_input.copy_(tensor)
        graph.replay()
        return tree_map_only(Tensor, torch.clone, static_output)

    def _capture(self, tensor: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Any] | None:
        static_input = tensor.clone()
        side = torch.cuda.Stream(tensor.device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_CALLS):
                self.function(static_input)
        torch.cuda.current_stream(tensor.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            # other threads, such as one that fills pinned memory, may call CUDA meanwhile
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                static_output = self.function(static_input)
        except RuntimeError as error:
            self._failed = True
            reason = str(error).partition("\n")[0]
            logger.warning("without CUDA graphs: capture failed: %s", reason)
            return None
        self.captured = True
        return graph, static_input, static_output


def _uncached_autocast(kind: str) -> AbstractContextManager[Any]:
    """Return the autocast in force, without its cache of casted weights.

    The cache is freed when autocast ends, and a graph would read the freed memory.
    """
    if not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, dtype=torch.get_autocast_dtype(kind), cache_enabled=False)
