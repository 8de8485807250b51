"""`nn.Linear` with oneDNN's fused kernel for float32 on a CPU.

torch's float32 path copies the bias into the output and lets MKL add the product; GELU then reads
and writes all of it again. oneDNN adds the bias and applies GELU while the product is still in
registers, and its product is faster on CPUs that MKL does not optimise for (measured in
`benchmarks/NOTES.md`). torch exposes that kernel, which `torch.compile` also uses, as
`torch.ops.mkldnn`; it has no gradient.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_HAS_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")


class FusedLinear(nn.Linear):
    """`nn.Linear` with an optional exact GELU before or after the product."""

    def forward(self, x: Tensor, gelu: bool = False, gelu_first: bool = False) -> Tensor:
        """Map x [..., in] to [..., out], with GELU on the output or on the input."""
        if _can_fuse(x, self.weight) and torch.is_grad_enabled():
            out: Tensor = _FusedLinearFunction.apply(x, self.weight, self.bias, gelu_first)
            return F.gelu(out) if gelu else out
        x = F.gelu(x) if gelu_first else x
        if _can_fuse(x, self.weight):
            return fused_linear(x, self.weight, self.bias, gelu)
        out = F.linear(x, self.weight, self.bias)
        return F.gelu(out) if gelu else out


def fused_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, gelu: bool = False
) -> Tensor:
    """Call oneDNN's fused linear kernel, which has no gradient."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(
        x, weight, bias, "gelu" if gelu else "none", [], "none"
    )
    return out


class _FusedLinearFunction(torch.autograd.Function):
    """Linear layer with a gradient.

    oneDNN computes the output and the input's gradient, MKL, as fast there, the weight's. A GELU on
    the input is recomputed in the backward pass, so its output, the widest tensor of a block, is
    not stored.
    """

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
        # with create_graph=True, this pass needs a gradient itself
        product = F.linear if torch.is_grad_enabled() else fused_linear
        rows = grad.reshape(-1, grad.shape[-1])  # `flatten` has no batched gradients
        needs_input, needs_weight, needs_bias, _ = ctx.needs_input_grad
        weight_grad = None
        if needs_weight:
            inputs = F.gelu(x) if ctx.gelu_first else x
            weight_grad = rows.t() @ inputs.reshape(-1, x.shape[-1])
        input_grad = None
        if needs_input:
            input_grad = product(grad, weight.t())
            if ctx.gelu_first:
                input_grad = torch.ops.aten.gelu_backward(input_grad, x)
        bias_grad = rows.sum(0) if needs_bias and ctx.has_bias else None
        return input_grad, weight_grad, bias_grad, None


def _can_fuse(x: Tensor, weight: Tensor) -> bool:
    """Return True if the oneDNN kernel applies.

    Compiled, exported and traced graphs, `torch.func` and forward-mode derivatives stay plain.
    """
    return (
        _HAS_ONEDNN
        and not torch._C._are_functorch_transforms_active()
        and torch.autograd.forward_ad._current_level < 0
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[no-untyped-call, attr-defined]
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and type(x) is Tensor
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    )
