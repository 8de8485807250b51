"""oneDNN's linear layer equals torch's, with gradients, and is left out of captured graphs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hiera_video.models import linear
from hiera_video.models.blocks import Mlp
from hiera_video.models.linear import FusedLinear


def error(ours: Tensor, plain: Tensor) -> float:
    return ((ours - plain).abs().max() / plain.abs().max()).item()


@pytest.fixture
def layer() -> FusedLinear:
    torch.manual_seed(0)
    return FusedLinear(96, 384)


@pytest.mark.parametrize("gelu", [False, True])
def test_the_kernel_is_used_and_equal(
    layer: FusedLinear, gelu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    kernel = linear.fused_linear
    monkeypatch.setattr(
        linear, "fused_linear", lambda *given: calls.append(given) or kernel(*given)
    )
    x = torch.randn(2, 50, 96)
    with torch.no_grad():
        plain = F.linear(x, layer.weight, layer.bias)
        assert error(layer(x, gelu=gelu), F.gelu(plain) if gelu else plain) <= 1e-5
    assert len(calls) == 1


@pytest.mark.parametrize("gelu", [None, "gelu", "gelu_first"])
def test_gradients_are_equal(layer: FusedLinear, gelu: str | None) -> None:
    x = torch.randn(2, 50, 96, requires_grad=True)
    plain = F.linear(F.gelu(x) if gelu == "gelu_first" else x, layer.weight, layer.bias)
    plain = F.gelu(plain) if gelu == "gelu" else plain
    weights = torch.randn_like(plain)
    inputs = (x, layer.weight, layer.bias)
    expected = torch.autograd.grad((plain * weights).sum(), inputs)
    found = torch.autograd.grad(
        (layer(x, **({gelu: True} if gelu else {})) * weights).sum(), inputs
    )
    for ours, theirs in zip(found, expected):
        assert ((ours - theirs).norm() / theirs.norm()).item() <= 1e-5


@pytest.mark.parametrize("gelu", [None, "gelu", "gelu_first"])
def test_gradients_of_gradients_are_equal(layer: FusedLinear, gelu: str | None) -> None:
    """A penalty on a gradient, as in Hessian-vector products."""
    x = torch.randn(2, 50, 96, requires_grad=True)
    plain = F.linear(F.gelu(x) if gelu == "gelu_first" else x, layer.weight, layer.bias)
    plain = F.gelu(plain) if gelu == "gelu" else plain
    inputs = (x, layer.weight, layer.bias)

    def penalty(out: Tensor) -> Tensor:
        first = torch.autograd.grad(out.pow(3).sum(), inputs, create_graph=True)
        return sum(one.square().mean() for one in first)  # type: ignore[return-value]

    expected = torch.autograd.grad(penalty(plain), inputs)
    found = torch.autograd.grad(penalty(layer(x, **({gelu: True} if gelu else {}))), inputs)
    for ours, theirs in zip(found, expected):
        assert ((ours - theirs).norm() / theirs.norm()).item() <= 1e-4


@pytest.mark.parametrize("gelu_first", [False, True])
def test_batched_gradients(layer: FusedLinear, gelu_first: bool) -> None:
    """Jacobians without a loop, which `is_grads_batched` computes."""
    x = torch.randn(2, 96)

    def function(x: Tensor) -> Tensor:
        return layer(x, gelu_first=gelu_first)[:, :3]

    jacobian = torch.autograd.functional.jacobian
    torch.testing.assert_close(jacobian(function, x, vectorize=True), jacobian(function, x))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated")
def test_functional_derivatives(layer: FusedLinear) -> None:
    """`torch.func` with gradients of each sample, and forward mode, which no kernel of ours has."""
    plain, x = torch.nn.Linear(96, 384), torch.randn(3, 96)
    plain.load_state_dict(layer.state_dict())
    weights = dict(layer.named_parameters())

    def loss(weights: dict[str, Tensor], module: torch.nn.Module, x: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(module, weights, x)
        return out.pow(2).sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, None, 0))
    for name, ours in each(weights, layer, x).items():
        torch.testing.assert_close(ours, each(weights, plain, x)[name])
    tangent = torch.randn_like(x)
    torch.testing.assert_close(
        torch.func.jvp(layer, (x,), (tangent,)), torch.func.jvp(plain, (x,), (tangent,))
    )
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, tangent)
        found, expected = (
            torch.autograd.forward_ad.unpack_dual(module(dual)).tangent for module in (layer, plain)
        )
    torch.testing.assert_close(found, expected)


def test_the_widest_output_is_not_stored() -> None:
    """An MLP stores the input of its GELU for the backward pass, but not the output."""
    wide: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        wide.extend([tensor.data_ptr()] * (tensor.shape[-1] == 384 and tensor.dim() == 3))
        return tensor

    mlp = Mlp(96, 384)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        mlp(torch.randn(2, 50, 96)).sum().backward()
    assert len(wide) == 1


@pytest.mark.parametrize("gelu", [False, True])
def test_gelu_before_the_product(layer: FusedLinear, gelu: bool) -> None:
    x = torch.randn(2, 50, 96)
    with torch.no_grad():
        plain = F.linear(F.gelu(x), layer.weight, layer.bias)
        assert error(layer(x, gelu=gelu, gelu_first=True), F.gelu(plain) if gelu else plain) <= 1e-5


def test_frozen_weights_get_no_gradient(layer: FusedLinear) -> None:
    layer.requires_grad_(False)
    x = torch.randn(1, 5, 96, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None and layer.bias.grad is None
    assert x.grad is not None and x.grad.shape == x.shape


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_use_the_plain_kernel(
    layer: FusedLinear, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "fused_linear", None)
    with torch.no_grad():
        assert layer.to(dtype)(torch.randn(3, 96, dtype=dtype)).dtype == dtype


def test_autocast_and_captured_graphs_use_the_plain_kernel(
    layer: FusedLinear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "fused_linear", None)
    x = torch.randn(3, 96)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    with torch.no_grad():
        exported = torch.export.export(layer, (x,))
    assert "mkldnn" not in str(exported.graph)


def test_empty_input(layer: FusedLinear) -> None:
    with torch.no_grad():
        assert layer(torch.zeros(0, 96)).shape == (0, 384)
