"""What survives a restart, in one place: the weights, the optimizer's and scaler's state, the averaged weights, progress."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hiera_video.errors import CheckpointError
from hiera_video.train.checkpoint import Checkpoint


@dataclass
class Progress:
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
    progress: Progress = field(default_factory=Progress)

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
            self.validated.load_state_dict(found.weights)
            if self.ema:
                self.model.load_state_dict(found.state["model"])
            _check_optimizer(self.optimizer, found.state["optimizer"])
            self.optimizer.load_state_dict(found.state["optimizer"])
            self.scaler.load_state_dict(found.state["scaler"])
            self.progress = Progress(**found.meta["progress"])
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            text = " ".join(str(error).split())
            raise CheckpointError(
                f"{found.folder}: is of another model or optimizer ({text}); choose another out_dir"
            ) from error
        if self.ema:
            self.ema.n_averaged.fill_(self.progress.step)


def averaged(model: nn.Module, decay: float | None) -> AveragedModel | None:
    """The moving average of `model`'s weights: after each step, average = decay × average + (1 - decay) × weights; the
    first step's average is the weights themselves. None where `decay` is."""
    return None if decay is None else AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]


def _check_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """torch loads the state of another optimizer without a word, as long as the number of parameters agrees."""
    here, there = optimizer.param_groups, saved["param_groups"]
    if [set(group) for group in here] != [set(group) for group in there]:
        raise ValueError("its optimizer has other settings")
    for group_here, group_there in zip(here, there):
        for parameter, key in zip(group_here["params"], group_there["params"]):
            for name, value in saved["state"].get(key, {}).items():
                if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                    raise ValueError(f"its optimizer's {name} is {list(value.shape)} for a {list(parameter.shape)}")
