"""CUDA graphs: one launch for all kernels of an inference or training pass of a fixed shape.

A small batch keeps a GPU busy for less time than the host takes to launch its kernels one by one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

logger = logging.getLogger(__name__)
WARM_UP_CALLS = 3
"""Calls before capture, in which torch compiles, chooses kernels and allocates their workspaces."""


@dataclass(frozen=True)
class _Capture:
    """A captured call, and the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    outputs: Any

    def replay(self, tensors: tuple[Tensor, ...]) -> Any:
        """Repeat the call for other tensors; the results outlast the next one."""
        for static, tensor in zip(self.inputs, tensors, strict=True):
            static.copy_(tensor)
        self.graph.replay()
        return tree_map_only(Tensor, torch.clone, self.outputs)


class _Graphed:
    """Captures a function once for each shape and dtype of its tensors."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.captured = False
        self._failed = False
        self._captures: dict[Any, _Capture] = {}

    def _call(self, tensors: tuple[Tensor, ...]) -> Any:
        if self._failed or not _on_gpu(tensors):
            return self.function(*tensors)
        key = tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors)
        if key not in self._captures:
            captured = self._capture(tensors)
            if captured is None:
                return self.function(*tensors)
            self._captures[key] = captured
        return self._captures[key].replay(tensors)

    def _capture(self, tensors: tuple[Tensor, ...]) -> _Capture | None:
        static, device = tuple(map(torch.clone, tensors)), tensors[0].device
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_CALLS):
                self.function(*static)
        torch.cuda.current_stream(device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            # other threads, such as one that fills pinned memory, may call CUDA meanwhile
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                outputs = self.function(*static)
        except RuntimeError as error:
            self._failed = True
            reason = str(error).partition("\n")[0]
            logger.warning("without CUDA graphs: capture failed: %s", reason)
            return None
        self.captured = True
        return _Capture(graph, static, outputs)


class GraphedForward(_Graphed):
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

    @torch.inference_mode()
    def __call__(self, tensor: Tensor) -> Any:
        return self._call((tensor,))

    def _capture(self, tensors: tuple[Tensor, ...]) -> _Capture | None:
        with _uncached_autocast(tensors[0].device.type):
            return super()._capture(tensors)


class GraphedBackward(_Graphed):
    """Calls a function that runs a forward and backward pass through a CUDA graph.

    What `GraphedForward` asks of a function holds here too. As a backward pass does, each call adds
    to the gradients that are there. They are always the same tensors, which the graph writes to: an
    optimizer may set them to None, but not replace them.

    Args:
        function: Maps tensors to tensors, and adds to the gradients of `parameters`.
        parameters: The weights in training; those that the function does not use keep no gradient.
    """

    def __init__(self, function: Callable[..., Any], parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(function)
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._gradients: list[tuple[nn.Parameter, Tensor]] = []

    def __call__(self, *tensors: Tensor) -> Any:
        # a gradient that the optimizer has set to None counts as zero
        cleared = [(weight, grad) for weight, grad in self._gradients if weight.grad is None]
        if cleared:
            torch._foreach_zero_([grad for _, grad in cleared])
        for weight, grad in cleared:
            weight.grad = grad
        return self._call(tensors)

    def _capture(self, tensors: tuple[Tensor, ...]) -> _Capture | None:
        before = [_copy(weight.grad) for weight in self._parameters]
        captured = super()._capture(tensors)
        # the calls before the capture have made the gradients, and have added to them
        for weight, grad in zip(self._parameters, before, strict=True):
            if captured is None or weight.grad is None:
                weight.grad = grad
            elif grad is None:
                weight.grad.zero_()
            else:
                weight.grad.copy_(grad)
        if captured:
            grads = ((weight, weight.grad) for weight in self._parameters)
            self._gradients = [(weight, grad) for weight, grad in grads if grad is not None]
        return captured


def _on_gpu(tensors: tuple[Tensor, ...]) -> bool:
    return all(tensor.is_cuda for tensor in tensors)


def _copy(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.clone()


def _uncached_autocast(kind: str) -> AbstractContextManager[Any]:
    """Return the autocast in force, without its cache of casted weights.

    The cache is freed when autocast ends, and a graph would read the freed memory.
    """
    if not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, dtype=torch.get_autocast_dtype(kind), cache_enabled=False)
