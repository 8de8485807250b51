"""Parameter groups: every parameter once, with its weight decay and learning-rate scale."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hiera_video.models.factory import create_model
from hiera_video.train.config import OptimConfig
from hiera_video.train.optim import (
    clip_gradients,
    fill_momentum,
    is_fused,
    make_optimizer,
    parameter_groups,
    set_lr,
    step_unless,
)


def test_each_parameter_has_the_decay_and_scale_of_its_layer() -> None:
    with torch.device("meta"):
        model = create_model("hiera_base_16x224", num_classes=10)
    groups = parameter_groups(model, OptimConfig(weight_decay=0.05, layer_decay=0.5))
    found = {name: group for group in groups for name in group["names"]}
    assert (
        sum(len(group["names"]) for group in groups) == len(found) == len(list(model.parameters()))
    )
    depth = 24
    expected = {  # name: (decay, layer); 26 layers, the last (head) at full rate
        "pos_embed_spatial": (0.0, 0),
        "pos_embed_temporal": (0.0, 0),
        "patch_embed.proj.weight": (0.05, 0),
        "patch_embed.proj.bias": (0.0, 0),
        "blocks.0.attn.qkv.weight": (0.05, 1),
        "blocks.0.norm1.weight": (0.0, 1),
        "blocks.23.mlp.fc2.bias": (0.0, depth),
        "blocks.23.mlp.fc2.weight": (0.05, depth),
        "norm.weight": (0.0, depth + 1),
        "head.projection.weight": (0.05, depth + 1),
        "head.projection.bias": (0.0, depth + 1),
    }
    for name, (decay, layer) in expected.items():
        group, scale = found[name], 0.5 ** (depth + 1 - layer)
        assert (group["weight_decay"], group["lr_scale"]) == (decay, scale), name


def test_set_lr_scales_the_learning_rate_of_each_group() -> None:
    model = create_model("hiera_micro_16x32", num_classes=3)
    for name, kind in (("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)):
        optimizer = make_optimizer(model, OptimConfig(name=name, layer_decay=0.5))  # type: ignore[arg-type]
        assert isinstance(optimizer, kind)
        set_lr(optimizer, 0.1)
        assert max(group["lr"] for group in optimizer.param_groups) == 0.1
        assert min(group["lr"] for group in optimizer.param_groups) == 0.1 * 0.5**5  # 4 blocks
    assert all(group["nesterov"] and group["momentum"] == 0.9 for group in optimizer.param_groups)
    plain = make_optimizer(model, OptimConfig(name="sgd", momentum=0.0))
    # torch refuses Nesterov momentum of 0
    assert not any(group["nesterov"] for group in plain.param_groups)


def weights_after(
    optimizer: torch.optim.Optimizer, parameter: Tensor, *, skips: list[float]
) -> Any:
    """Take a step for each of `skips`, with a NaN gradient where it is 1."""
    for skip in skips:
        parameter.grad = torch.full_like(parameter, float("nan") if skip else 2.0)
        step_unless(torch.tensor(skip), optimizer)
    state = optimizer.state_dict()["state"].get(0, {})
    return parameter.tolist(), {
        name: value.tolist() for name, value in state.items() if value is not None
    }


@pytest.mark.parametrize(
    "make",
    [
        lambda weights: torch.optim.AdamW(weights, lr=0.1, fused=True),
        lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, nesterov=True, fused=True),
        lambda weights: torch.optim.SGD(weights, lr=0.1, fused=True),
        lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, nesterov=True),
    ],
    ids=["adamw", "fused sgd", "fused sgd without momentum", "sgd"],
)
def test_a_skipped_update_changes_neither_weights_nor_state(make: Any) -> None:
    found = {}
    for skips in ([0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 1.0, 0.0]):
        parameter = nn.Parameter(torch.tensor([1.0, -3.0]))
        optimizer = make([parameter])
        fill_momentum(optimizer)
        found[len(skips)] = weights_after(optimizer, parameter, skips=skips)
        assert not hasattr(optimizer, "found_inf") and not hasattr(optimizer, "grad_scale")
    assert found[2] == found[3] == found[5] and found[2][0] != [1.0, -3.0]


def test_momentum_of_zero_equals_none() -> None:
    found = []
    for fill in (False, True):
        parameter = nn.Parameter(torch.tensor([1.0, -3.0]))
        optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9, nesterov=True, fused=True)
        if fill:
            fill_momentum(optimizer)
            assert optimizer.state[parameter]["momentum_buffer"].tolist() == [0.0, 0.0]
        found.append(weights_after(optimizer, parameter, skips=[0.0, 0.0]))
    assert found[0] == found[1]


def test_kernels_on_a_cpu() -> None:
    """Fused SGD rounds differently on a CPU, where runs must not change."""
    model = create_model("hiera_micro_16x32", num_classes=3)
    assert is_fused(make_optimizer(model, OptimConfig()))
    assert not is_fused(make_optimizer(model, OptimConfig(name="sgd")))


def test_the_norm_stays_a_tensor_and_gradients_are_scaled_down_to_the_limit() -> None:
    model = nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    assert clip_gradients(model, None).tolist() == 5.0
    assert clip_gradients(model, 10.0).tolist() == 5.0
    assert model.weight.grad.tolist() == [[3.0, 4.0]]
    assert clip_gradients(model, 1.0).tolist() == 5.0
    assert model.weight.grad[0].tolist() == pytest.approx([0.6, 0.8])
