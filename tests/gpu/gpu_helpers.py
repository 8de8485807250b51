"""Models, batches and trainers of the GPU tests."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hiera_video.data.config import AugmentConfig
from hiera_video.data.loading.loader import ClipBatch
from hiera_video.models.compiled import compile_blocks
from hiera_video.models.factory import create_model
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.runtime.distributed import World
from hiera_video.runtime.signals import StopSignal
from hiera_video.train.config import OptimConfig, TrainConfig
from hiera_video.train.state import TrainState, make_state
from hiera_video.train.tasks import Classify, Pretrain, Task
from hiera_video.train.trainer import DONE, RunInfo, Trainer

CLASSES, SIZE = 5, (16, 32, 32)


@contextmanager
def without_gpu() -> Iterator[None]:
    """Let the code in the block find no GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(torch.cuda, "device_count", lambda: 0)
        yield


def redrawn(model: nn.Module, std: float = 0.05) -> nn.Module:
    """Redraw all matrices: with initial heads, scaled by 0.001, any two networks agree."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, std, generator=generator)
    return model


def make_batch(
    count: int = 4, *, step: int = 0, multi_label: bool = False, bad: bool = False
) -> ClipBatch:
    """Return clips of noise, one batch for each step; `bad` ones hold a NaN."""
    generator = torch.Generator().manual_seed(step)
    numbers = torch.arange(count)
    clips = torch.randn(count, 3, *SIZE, generator=generator)
    if bad:
        clips[1, 0, 0, 0, 0] = float("nan")
    labels = numbers % CLASSES
    if multi_label:
        labels = torch.nn.functional.one_hot(labels, CLASSES).float()
    return ClipBatch(
        clips=clips,
        labels=labels,
        row=numbers + 10 * step,
        view=numbers * 0,
        position=numbers,
        substituted=(),
    )


def make_state_on(
    device: torch.device,
    *,
    mae: dict[str, Any] | None = None,
    train: TrainConfig,
    optim: OptimConfig,
    drop_path: float = 0.1,
) -> TrainState:
    """Return the same micro model and optimizer each time."""
    torch.manual_seed(0)
    if mae is None:
        model = create_model("hiera_micro_16x32", num_classes=CLASSES, drop_path_rate=drop_path)
    else:
        model = create_model("mae_hiera_micro_16x32", drop_path_rate=drop_path)
        assert isinstance(model, MaskedAutoencoderHiera)
        if mae:
            model = MaskedAutoencoderHiera(model.config, replace(model.mae, **mae))
    return make_state(model.to(device).train(), optim, train, World(0, 1, device))


def make_task(model: nn.Module, *, multi_label: bool = False, mixing: float = 0.0) -> Task:
    """Return the task of a model."""
    if isinstance(model, MaskedAutoencoderHiera):
        return Pretrain(
            draw_keep=model.draw_keep,
            tokens=model.unit_tokens.numel(),
            visible=model.num_visible_units(),
        )
    augment = AugmentConfig(mixup=mixing, cutmix=mixing, label_smoothing=0.1)
    return Classify(num_classes=CLASSES, multi_label=multi_label, augment=augment)


def make_trainer(
    device: torch.device,
    *,
    mae: dict[str, Any] | None = None,
    multi_label: bool = False,
    mixing: float = 0.0,
    optim: OptimConfig | None = None,
    drop_path: float = 0.1,
    store: Any = None,
    log: Any = None,
    steps_per_epoch: int = 100,
    max_steps: int | None = None,
    state: TrainState | None = None,
    **train: Any,
) -> Trainer:
    """Return a trainer of a micro model."""
    config = TrainConfig(**{"batch_size": 4, "epochs": 1, "precision": "fp32", **train})
    optim = optim or OptimConfig(lr=1e-3, clip_grad=1.0)
    state = state or make_state_on(device, mae=mae, train=config, optim=optim, drop_path=drop_path)
    return Trainer(
        state,
        make_task(state.model, multi_label=multi_label, mixing=mixing),
        optim=optim,
        train=config,
        run=RunInfo(
            world=World(0, 1, device), steps_per_epoch=steps_per_epoch, num_videos=100, seed=0
        ),
        store=store,
        log=log,
        max_steps=max_steps,
    )


def batches_from(first: int, *, bad_step: int | None = None, **kind: Any) -> Iterator[Any]:
    """Yield the batch of each step, from `first` on."""
    step = first
    while True:
        yield [make_batch(step=step, bad=step == bad_step, **kind)]
        step += 1


def train_arguments(movies: Path, run: Path, *more: str) -> list[str]:
    """Return the arguments of a short training."""
    return [
        *("--cfg", "configs/motion_hiera_micro.yaml", f"out_dir={run}"),
        *(f"data.train={movies / 'train.csv'}", f"data.val={movies / 'val.csv'}"),
        *("data.workers=0", "train.epochs=1", "train.batch_size=4", "optim.warmup_epochs=0"),
        *("train.log_every=1", "train.precision=fp32", *more),
    ]


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Return the weights on the CPU."""
    return {
        name: value.detach().cpu().clone()
        for name, value in trainer.state.model.state_dict().items()
    }


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Return the norm of the difference of all weights."""
    return math.sqrt(sum(float((one[name] - other[name]).square().sum()) for name in other))


def train(trainer: Trainer, steps: int, **kind: Any) -> int:
    """Train `steps` steps."""
    first = trainer.progress.step
    trainer.last_step = first + steps
    return trainer.fit(batches_from(first, **kind), StopSignal())


def check_captured_steps(cuda: torch.device, change: str) -> None:
    """Compare steps as a CUDA graph with the same without one, under another setting."""
    accumulate = 2 if change == "accumulate" else 1
    kind = {"precision": "bf16", "task": "pretrain", "mae": {}, "accumulate": accumulate}
    trainers = [make_trainer(cuda, cuda_graph=graph, **kind) for graph in (True, False)]
    before = weights_of(trainers[0])
    for trainer in trainers:
        model: Any = trainer.state.model
        model.checkpointing = change == "checkpointing"
        if change == "compile":
            compile_blocks(model)
        trainer.last_step = 4
        parts = ([make_batch(step=2 * step), make_batch(step=2 * step + 1)] for step in range(8))
        steps = (step[:accumulate] for step in parts)
        assert trainer.fit(steps, StopSignal()) == DONE
    graph = trainers[0].forward_backward.graph
    assert graph and graph.captured
    moved = difference(weights_of(trainers[1]), before)
    assert difference(*map(weights_of, trainers)) <= 0.15 * moved
