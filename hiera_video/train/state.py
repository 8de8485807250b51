"""What survives a restart, in one place: the weights, the optimizer's and scaler's state, the averaged weights, progress."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hiera_video.errors import CheckpointError
from hiera_video.runtime.distributed import World
from hiera_video.train.checkpoint import Checkpoint
from hiera_video.train.config import OptimConfig, TrainConfig
from hiera_video.train.optim import make_optimizer
from hiera_video.train.parallel import cut_like, shard


@dataclass
class TrainProgress:
    """What a checkpoint remembers beside tensors."""

    step: int = 0
    """Optimizer steps done."""
    best: float | None = None
    """Best validation score so far, higher is better."""
    broken: int = 0
    """Videos that could not be read and were substituted."""


@dataclass(kw_only=True)
class TrainState:
    """A model in training. All random numbers are functions of (seed, step, position), so nothing else is remembered.

    A checkpoint's `model.safetensors` holds the weights that validation saw, which are what a user wants: the averaged
    ones where there are any; those that training goes on from are then in `state.pt`.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: AveragedModel | None = None
    """Exponential moving average of the weights, None where `train.ema` is unset."""
    skeleton: nn.Module | None = None
    """The model without weights, into which a sharded one is gathered to be validated; None where it is not sharded."""
    progress: TrainProgress = field(default_factory=TrainProgress)

    @property
    def validated(self) -> nn.Module:
        """The model that validation looks at."""
        module: nn.Module = self.ema.module if self.ema else self.model
        return module

    def weights(self) -> dict[str, Tensor]:
        """For `model.safetensors`."""
        return self.validated.state_dict()

    def rest(self) -> dict[str, Any]:
        """For `state.pt`."""
        parts = {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}
        return {**parts, "model": self.model.state_dict()} if self.ema else parts

    def meta(self) -> dict[str, Any]:
        """For `meta.json`."""
        return {"progress": asdict(self.progress)}

    def load(self, found: Checkpoint) -> None:
        """Go on from `found`. Raises `CheckpointError` where it is of another model or optimizer."""
        try:
            _load(self.validated, found.weights)
            if self.ema:
                _load(self.model, found.state["model"])
            self.optimizer.load_state_dict(_cut_optimizer(self.optimizer, found.state["optimizer"]))
            self.scaler.load_state_dict(found.state["scaler"])
            self.progress = TrainProgress(**found.meta["progress"])
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            text = " ".join(str(error).split())
            raise CheckpointError(
                f"{found.folder}: is of another model or optimizer ({text}); choose another out_dir"
            ) from error
        if self.ema:
            self.ema.n_averaged.fill_(self.progress.step)


def make_state(
    model: nn.Module, optim: OptimConfig, train: TrainConfig, world: World
) -> TrainState:
    """The state of a run's first step; `model` is sharded in place where `train.parallel=fsdp` and there are ranks."""
    ema, skeleton = averaged(model, train.ema), None
    if train.parallel == "fsdp" and world.size > 1:
        skeleton = deepcopy(model).to("meta")
        for module in [model, ema.module] if ema else [model]:
            shard(module, world)
    return TrainState(
        model=model,
        optimizer=make_optimizer(model, optim),
        scaler=torch.amp.GradScaler(world.device.type, enabled=train.precision == "fp16"),
        ema=ema,
        skeleton=skeleton,
    )


def averaged(model: nn.Module, decay: float | None) -> AveragedModel | None:
    """The moving average of `model`'s weights: after each step, average = decay × average + (1 - decay) × weights; the
    first step's average is the weights themselves. None where `decay` is."""
    return None if decay is None else AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]


def _load(model: nn.Module, weights: dict[str, Tensor]) -> None:
    here = model.state_dict()
    model.load_state_dict(
        {name: cut_like(value, here.get(name, value)) for name, value in weights.items()}
    )


def _cut_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """`saved` with this rank's share of each tensor. torch loads the state of another optimizer without a word, as long
    as the number of parameters agrees: raises `ValueError` for one."""
    here, there = optimizer.param_groups, saved["param_groups"]
    if [set(group) for group in here] != [set(group) for group in there]:
        raise ValueError("its optimizer has other settings")
    state: dict[Any, dict[str, Any]] = {}
    for group_here, group_there in zip(here, there):
        for parameter, key in zip(group_here["params"], group_there["params"]):
            for name, value in saved["state"].get(key, {}).items():
                if isinstance(value, Tensor) and value.ndim:
                    if value.shape != parameter.shape:
                        raise ValueError(
                            f"its optimizer's {name} is {list(value.shape)} for a {list(parameter.shape)}"
                        )
                    value = cut_like(value, parameter)
                state.setdefault(key, {})[name] = value
    return {**saved, "state": state}
