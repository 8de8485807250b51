"""Training state: model, optimizer, loss scaler, averaged weights and progress."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from hiera_video.errors import CheckpointError
from hiera_video.models.lora import has_adapters, merge_adapters
from hiera_video.runtime.distributed import World
from hiera_video.train.checkpoint import Checkpoint
from hiera_video.train.config import OptimConfig, TrainConfig
from hiera_video.train.freeze import restrict_training
from hiera_video.train.optim import fill_momentum, make_optimizer, step_unless
from hiera_video.train.parallel import shard_like, shard_model

KERNELS = ("fused", "foreach")
"""Optimizer settings that choose between implementations, not between results."""


@dataclass
class TrainProgress:
    """Progress of a run, stored in each checkpoint's `meta.json`."""

    step: int = 0
    """Optimizer steps done."""
    best: float | None = None
    """Best validation score so far; higher is better."""
    broken: int = 0
    """Unreadable videos that were substituted, counted each time."""
    since_best: int = 0
    """Validations since the best one."""


class AveragedWeights:
    """Exponential moving average of a model's weights.

    After each step, average = decay × average + (1 - decay) × weights; the average of the first
    step is the weights themselves. Unlike torch's `AveragedModel`, it counts steps on the host,
    which therefore never waits for the device.

    Args:
        model: The model; buffers are copied at each update.
        decay: Weight of the previous average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = deepcopy(model)
        """The model with averaged weights."""
        self.steps = 0
        """Number of updates so far."""
        self._blend = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the weights of `model` to the average."""
        averages, weights = list(self.module.parameters()), list(model.parameters())
        copies = list(zip(self.module.buffers(), model.buffers(), strict=True))
        if self.steps:
            self._blend(averages, weights, self.steps)
        else:
            copies += zip(averages, weights, strict=True)
        for own, current in copies:
            own.copy_(current)
        self.steps += 1


@dataclass(kw_only=True)
class TrainState:
    """All that a checkpoint restores; random numbers need no state of their own.

    A checkpoint's `model.safetensors` holds the weights that validation uses. With averaged weights
    those are the averages, and `state.pt` also holds the weights that training resumes with. With
    low-rank adapters it holds the merged weights, and `state.pt` the others.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: AveragedWeights | None = None
    """Exponential moving average of the weights; None where `train.ema` is unset."""
    gather_into: nn.Module | None = None
    """Meta-device copy of a sharded model, which receives its gathered weights for validation."""
    progress: TrainProgress = field(default_factory=TrainProgress)

    @property
    def eval_model(self) -> nn.Module:
        """The model that is validated: averaged weights where there are any."""
        module: nn.Module = self.ema.module if self.ema else self.model
        return module

    @property
    def loss_scale(self) -> Tensor | None:
        """The factor of the loss in fp16 training, on the device; None at other precisions."""
        if not self.scaler.is_enabled():
            return None
        one = torch.ones((), device=next(self.model.parameters()).device)
        return self.scaler.scale(one)

    def update_weights(self, skip: Tensor) -> None:
        """Take the optimizer's step, unless `skip` is 1.0, and delete the gradients.

        Gradients must be unscaled. If any is infinite, the scale of the loss is halved.
        """
        step_unless(skip, self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    def weights(self) -> dict[str, Tensor]:
        """Return the content of `model.safetensors`."""
        return merge_adapters(self.eval_model.state_dict())

    def training_state(self) -> dict[str, Any]:
        """Return the content of `state.pt`."""
        state = {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}
        adapted = has_adapters(self.model)
        if self.ema or adapted:
            state["model"] = self.model.state_dict()
        if self.ema and adapted:
            state["average"] = self.ema.module.state_dict()
        return state

    def meta(self) -> dict[str, Any]:
        """Return the state's part of `meta.json`."""
        return {"progress": asdict(self.progress)}

    def load(self, checkpoint: Checkpoint) -> None:
        """Restore the state from `checkpoint`.

        Raises:
            CheckpointError: The checkpoint was written with another model or optimizer.
        """
        state = checkpoint.state
        try:
            adapted = has_adapters(self.model)
            if self.ema:
                _load_weights(self.ema.module, state["average"] if adapted else checkpoint.weights)
            own = self.ema or adapted
            _load_weights(self.model, state["model"] if own else checkpoint.weights)
            self.optimizer.load_state_dict(_fit_optimizer(self.optimizer, state["optimizer"]))
            fill_momentum(self.optimizer)
            self.scaler.load_state_dict(state["scaler"])
            self.progress = TrainProgress(**checkpoint.meta["progress"])
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            text = " ".join(str(error).split())
            raise CheckpointError(
                f"{checkpoint.folder}: is of another model or optimizer ({text}); choose another "
                "out_dir"
            ) from error
        if self.ema:
            self.ema.steps = self.progress.step


def make_state(
    model: nn.Module, optim: OptimConfig, train: TrainConfig, world: World
) -> TrainState:
    """Create the state of a run's first step.

    Args:
        model: The model on its device; sharded in place if `train.parallel=fsdp` on several ranks.
            Frozen in part and given adapters where the settings say so.
        optim: Optimizer settings.
        train: Precision, sharding and averaging.
        world: The ranks.
    """
    restrict_training(model, train.freeze, optim.lora_rank)
    ema = None if train.ema is None else AveragedWeights(model, train.ema)
    gather_into = None
    if train.parallel == "fsdp" and world.size > 1:
        gather_into = deepcopy(model).to("meta")
        for module in [model, ema.module] if ema else [model]:
            shard_model(module, world)
    return TrainState(
        model=model,
        optimizer=make_optimizer(model, optim),
        scaler=torch.amp.GradScaler(world.device.type, enabled=train.precision == "fp16"),
        ema=ema,
        gather_into=gather_into,
    )


def _load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    current = model.state_dict()
    sharded = {name: shard_like(value, current.get(name, value)) for name, value in weights.items()}
    model.load_state_dict(sharded)


def _fit_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """Return `saved` with this rank's shard of each tensor, and the kernels of this device.

    Raise `ValueError` if it is the state of another optimizer, which torch would load silently as
    long as the number of parameters agrees.
    """
    groups, saved_groups = optimizer.param_groups, saved["param_groups"]
    if [set(group) for group in groups] != [set(group) for group in saved_groups]:
        raise ValueError("its optimizer has other settings")
    state: dict[Any, dict[str, Any]] = {}
    for group, saved_group in zip(groups, saved_groups):
        for parameter, key in zip(group["params"], saved_group["params"]):
            for name, value in saved["state"].get(key, {}).items():
                if isinstance(value, Tensor) and value.ndim:
                    if value.shape != parameter.shape:
                        raise ValueError(
                            f"its optimizer's {name} is {list(value.shape)} for a parameter "
                            f"{list(parameter.shape)}"
                        )
                    value = shard_like(value, parameter)
                state.setdefault(key, {})[name] = value
    kernels = [{key: group[key] for key in KERNELS if key in group} for group in groups]
    fitted = [{**group, **kernel} for group, kernel in zip(saved_groups, kernels)]
    return {"state": state, "param_groups": fitted}
