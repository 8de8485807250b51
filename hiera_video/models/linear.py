"""`nn.Linear` with oneDNN's kernels where they win: float32 on a CPU. The one place that chooses.

torch's own float32 path copies the bias over the output, then lets MKL add the product, and GELU reads and writes
all of it once more. oneDNN adds the bias and applies GELU while the product is still in registers, and its product is
the faster one on CPUs that MKL does not know (`benchmarks/NOTES.md` has the measurements). torch offers that kernel under
`torch.ops.mkldnn`, where `torch.compile` takes it from; it has no gradient of its own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FUSED = hasattr(torch.ops.mkldnn, "_linear_pointwise")


class Linear(nn.Linear):
    """x [..., in] to [..., out], as `nn.Linear`; with `gelu`, GELU (exact) of that; with `gelu_first`, of GELU of x."""

    def forward(self, x: Tensor, gelu: bool = False, gelu_first: bool = False) -> Tensor:
        if _fits(x, self.weight) and torch.is_grad_enabled():
            out: Tensor = _Traced.apply(x, self.weight, self.bias, gelu_first)
            return F.gelu(out) if gelu else out
        x = F.gelu(x) if gelu_first else x
        if _fits(x, self.weight):
            return fused_linear(x, self.weight, self.bias, gelu)
        out = F.linear(x, self.weight, self.bias)
        return F.gelu(out) if gelu else out


def fused_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, gelu: bool = False
) -> Tensor:
    """One call of oneDNN, without a gradient."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(
        x, weight, bias, "gelu" if gelu else "none", [], "none"
    )
    return out


class _Traced(torch.autograd.Function):
    """The product with a gradient: oneDNN for the output and the input's gradient, MKL, as fast there, for the weight's.
    A GELU before it is computed again in the backward pass, so that its output, the widest of a block, is not kept."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, gelu_first: bool
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias, ctx.gelu_first = bias is not None, gelu_first
        return fused_linear(F.gelu(x) if gelu_first else x, weight, bias)

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        rows = grad.flatten(0, -2)
        wants_input, wants_weight, wants_bias, _ = ctx.needs_input_grad
        of_weight = None
        if wants_weight:
            of_weight = rows.t() @ (F.gelu(x) if ctx.gelu_first else x).flatten(0, -2)
        of_input = None
        if wants_input:
            of_input = fused_linear(grad, weight.t())
            of_input = torch.ops.aten.gelu_backward(of_input, x) if ctx.gelu_first else of_input
        return of_input, of_weight, rows.sum(0) if wants_bias and ctx.has_bias else None, None


def _fits(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN's kernel takes these. Graphs that others read (compiled, exported, traced) stay in plain words."""
    return (
        _FUSED
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[no-untyped-call, attr-defined]
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and type(x) is Tensor
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    )
