"""Optimizer over exact parameter groups: every parameter is in one group, by layer and by whether it decays."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from hiera_video.train.config import OptimConfig
from hiera_video.train.parallel import whole


class LayeredModel(Protocol):
    """What the groups need to know of a model."""

    num_layers: int

    def no_weight_decay(self) -> set[str]: ...
    def layer_id(self, parameter_name: str) -> int: ...


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Groups with `params`, `names`, `weight_decay` and `lr_scale` (= layer_decay ^ distance from the last layer).

    1-D parameters (norms, biases) and `model.no_weight_decay()` do not decay. Source: paper tables 11–13.
    """
    layered: Any = model
    undecayed = layered.no_weight_decay()
    named = {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    missing = undecayed - {name for name, _ in model.named_parameters()}
    assert not missing, f"no_weight_decay names parameters that do not exist: {sorted(missing)}"
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in named.items():
        layer, decays = layered.layer_id(name), parameter.ndim > 1 and name not in undecayed
        group = groups.setdefault(
            (layer, decays),
            {
                "params": [],
                "names": [],
                "weight_decay": config.weight_decay if decays else 0.0,
                "lr_scale": config.layer_decay ** (layered.num_layers - layer),
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    assert sum(len(group["names"]) for group in groups.values()) == len(named)
    return [groups[key] for key in sorted(groups)]


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW (fused) or SGD over `parameter_groups`; the loop sets each step's rate with `set_lr`."""
    groups = parameter_groups(model, config)
    if config.name == "sgd":
        return torch.optim.SGD(
            groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0
        )
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its share of `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def clip_gradients(model: nn.Module, largest: float | None) -> float:
    """The norm of all gradients together, of a sharded model's too; where it is over `largest` they are scaled down to it."""
    parameters = list(model.parameters())
    norm = nn.utils.get_total_norm(
        [parameter.grad for parameter in parameters if parameter.grad is not None]
    )
    if largest is not None:
        nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return float(whole(norm))
