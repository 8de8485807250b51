"""Optimizer and parameter groups: each parameter is in one group, by layer and weight decay."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hiera_video.train.config import OptimConfig
from hiera_video.train.parallel import gather_tensor, is_sharded_tensor


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Return the optimizer's parameter groups.

    1-D parameters (norms, biases) and those in `model.no_weight_decay()` are not decayed. Source:
    tables 11–13 of the paper.

    Args:
        model: A model with `num_layers`, `layer_id(parameter_name)` and `no_weight_decay()`.
        config: Weight decay and layer-wise learning-rate decay.

    Returns:
        Groups with `params`, `names`, `weight_decay` and `lr_scale`, which is `layer_decay` to the
        power of the distance from the last layer.
    """
    layered: Any = model
    no_decay = layered.no_weight_decay()
    named = {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    missing = no_decay - {name for name, _ in model.named_parameters()}
    assert not missing, f"no_weight_decay names parameters that do not exist: {sorted(missing)}"
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in named.items():
        layer, decays = layered.layer_id(name), parameter.ndim > 1 and name not in no_decay
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
    """Return AdamW or SGD over `parameter_groups`, fused where that changes no result.

    Fused, a whole update is a few kernels, and skipping it needs no answer from the device. On a
    CPU, fused SGD rounds differently; sharded, torch has none.
    """
    groups = parameter_groups(model, config)
    if config.name == "sgd":
        tensors = [parameter for group in groups for parameter in group["params"]]
        fused = all(tensor.is_cuda and not is_sharded_tensor(tensor) for tensor in tensors)
        nesterov = config.momentum > 0
        optimizer = torch.optim.SGD(
            groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=fused or None
        )
        fill_momentum(optimizer)
        return optimizer
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


def is_fused(optimizer: torch.optim.Optimizer) -> bool:
    """Return True if every update of `optimizer` is a fused kernel."""
    return all(group.get("fused") for group in optimizer.param_groups)


def fill_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give each parameter of fused SGD a momentum of zero, which equals no momentum.

    torch allocates it at the first update without values, and would use those if that is skipped.
    """
    if not isinstance(optimizer, torch.optim.SGD) or not is_fused(optimizer):
        return
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            state = optimizer.state[parameter]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)


def step_unless(skip: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Update the weights, unless `skip` is 1.0: weights and optimizer state then do not change.

    A fused optimizer reads `skip` on its device. For another one the host must wait for it.
    """
    if is_fused(optimizer):
        # the protocol between torch's GradScaler and its fused optimizers
        fused: Any = optimizer
        fused.grad_scale, fused.found_inf = None, skip
        optimizer.step()
        del fused.grad_scale, fused.found_inf
    elif not skip:
        optimizer.step()


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set each group's learning rate to `lr` times its `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def clip_gradients(model: nn.Module, max_norm: float | None) -> Tensor:
    """Return the norm of all gradients and, if it exceeds `max_norm`, scale them down to it.

    The norm stays on the device of the gradients. Sharded gradients are included, so that every
    rank must call this.
    """
    parameters = list(model.parameters())
    norm = nn.utils.get_total_norm(
        [parameter.grad for parameter in parameters if parameter.grad is not None]
    )
    if max_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return gather_tensor(norm)
