"""CUDA graphs: one launch for all kernels of an inference or training pass of a fixed shape.

A small batch keeps a GPU busy for less time than the host takes to launch its kernels one by one.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from hiera_video.utils.collector import collector_paused

logger = logging.getLogger(__name__)
WARM_UP_CALLS = 3
"""Calls before capture, in which torch compiles, chooses kernels and allocates their workspaces."""


class CaptureError(RuntimeError):
    """A function cannot be captured in a CUDA graph; the message is the reason."""


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
        self._failed = False
        self._captures: dict[Any, _Capture] = {}

    @property
    def captured(self) -> bool:
        """True if a call has been captured."""
        return bool(self._captures)

    @torch.inference_mode()
    def __call__(self, tensor: Tensor) -> Any:
        kind = tensor.device.type
        precision = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind)
        key = (tensor.shape, tensor.dtype, tensor.device, precision)
        if key not in self._captures:
            if self._failed or not _on_gpu(tensor):
                return self.function(tensor)
            try:
                with _uncached_autocast(kind):
                    self._captures[key] = _capture(self.function, (tensor,))
            except RuntimeError as error:
                self._failed = True
                logger.warning("without CUDA graphs: capture failed: %s", _reason(error))
                return self.function(tensor)
        return self._captures[key].replay((tensor,))


class GraphedBackward:
    """Calls a function that runs a forward and backward pass through a CUDA graph.

    The function must meet the conditions of `GraphedForward`. Each call adds to the gradients, as a
    backward pass does. They are always the same tensors, which the graph writes to: an optimizer
    may set them to None, which counts as zero, but not replace them. On a CPU, the function itself
    is called.

    Args:
        function: Maps tensors of the same shapes in each call to tensors, and adds to the gradients
            of `parameters`.
        parameters: The weights in training; those that the function does not use keep no gradient.
    """

    def __init__(self, function: Callable[..., Any], parameters: Iterable[nn.Parameter]) -> None:
        self.function = function
        self._parameters = list(parameters)
        self._gradients: list[tuple[nn.Parameter, Tensor]] = []
        self._captured: _Capture | None = None

    @property
    def captured(self) -> bool:
        """True if a call has been captured."""
        return self._captured is not None

    def __call__(self, *tensors: Tensor) -> Any:
        """Call the function.

        Raises:
            CaptureError: The capture in the first call failed. Torch before 2.15 may then reuse no
                memory, so that the process should end.
        """
        if not _on_gpu(*tensors):
            return self.function(*tensors)
        if self._captured is None:
            assert all(weight.grad is None for weight in self._parameters)
            try:
                self._captured = _capture(self.function, tensors, self._make_gradients)
            except RuntimeError as error:
                if isinstance(_cause(error), torch.OutOfMemoryError):
                    raise _cause(error) from None
                raise CaptureError(_reason(error)) from error
            for weight, _ in self._gradients:
                weight.grad = None
        cleared = [(weight, grad) for weight, grad in self._gradients if weight.grad is None]
        if cleared:
            torch._foreach_zero_([grad for _, grad in cleared])
        for weight, grad in cleared:
            weight.grad = grad
        return self._captured.replay(tensors)

    def _make_gradients(self) -> None:
        """Allocate gradients of the weights that the first calls used.

        Theirs may lie in parts of large blocks, which the graph could then not use.
        """
        used = [weight for weight in self._parameters if weight.grad is not None]
        for weight in used:
            weight.grad = None
        self._gradients = [(weight, torch.zeros_like(weight)) for weight in used]
        for weight, grad in self._gradients:
            weight.grad = grad


def _capture(
    function: Callable[..., Any],
    tensors: tuple[Tensor, ...],
    after_warm_up: Callable[[], None] = lambda: None,
) -> _Capture:
    """Call `function` a few times, then capture a call.

    Raises:
        RuntimeError: The capture failed.
    """
    static, device = tuple(map(torch.clone, tensors)), tensors[0].device
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(WARM_UP_CALLS):
            function(*static)
    torch.cuda.current_stream(device).wait_stream(side)
    after_warm_up()
    graph = torch.cuda.CUDAGraph()
    # other threads, such as one that fills pinned memory, may call CUDA meanwhile
    with _undisturbed(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = function(*static)
    return _Capture(graph, static, outputs)


@contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Keep the garbage collector out of a capture, and the current stream as it was.

    An old graph or kernel that is collected during a capture ends it (pytorch#161037), and before
    torch 2.15 the stream of a failed capture stayed the current one.
    """
    stream = torch.cuda.current_stream(device)
    gc.collect()
    try:
        with collector_paused():
            yield
    finally:
        torch.cuda.set_stream(stream)


def _cause(error: BaseException) -> BaseException:
    """Return the first error: the end of a capture raises another one after that of a call."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _reason(error: BaseException) -> str:
    return str(_cause(error)).partition("\n")[0]


def _on_gpu(*tensors: Tensor) -> bool:
    return all(tensor.is_cuda for tensor in tensors)


def _uncached_autocast(kind: str) -> AbstractContextManager[Any]:
    """Return the autocast in force, without its cache of casted weights.

    The cache is freed when autocast ends, and a graph would read the freed memory.
    """
    if not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, dtype=torch.get_autocast_dtype(kind), cache_enabled=False)
