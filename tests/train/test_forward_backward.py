"""Pre-training through an emulated CUDA graph learns what it does without one, to the bit."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from graph_emulator import EmulatedGraph
from torch import Tensor, nn

from hiera_video.config.load import load_config
from hiera_video.data.loading.loader import ClipBatch
from hiera_video.errors import ConfigError, DeviceMemoryError
from hiera_video.models.factory import create_model
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.registry import MaeConfig
from hiera_video.runtime.cuda_graphs import GraphedBackward
from hiera_video.runtime.distributed import SINGLE_PROCESS, World
from hiera_video.runtime.log import MetricLog, read_metrics
from hiera_video.runtime.signals import StopSignal
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.train.config import OptimConfig, TrainConfig
from hiera_video.train.context import StepContext
from hiera_video.train.state import make_state
from hiera_video.train.tasks import Pretrain, TaskOutput
from hiera_video.train.trainer import DONE, NON_FINITE, RunInfo, Trainer

INPUT_SIZE = (4, 32, 32)
OPTIM = OptimConfig(lr=1e-2, clip_grad=1.0, warmup_epochs=0.0)
STEPS, PARTS = 3, 2
MAE = MaeConfig(mask_ratio=0.5, decoder_depth=1, decoder_embed_dim=32, decoder_num_heads=2)
MAES: list[dict[str, Any]] = [
    {},
    {"decoder_tokens": "running_cell"},
    {"decoder_tokens": "random"},
    {"masking": "tube"},
    {"masking": "future"},
    {"target": "hog"},
    {"target_frames": "all"},
]


def batches(first: int = 0, *, bad_step: int | None = None) -> Iterator[list[ClipBatch]]:
    """Yield the micro-batches of each step; one has a NaN in `bad_step`."""
    step = first
    while True:
        generator = torch.Generator().manual_seed(step)
        parts = []
        for part in range(PARTS):
            numbers = torch.arange(2)
            clips = torch.randn(2, 3, *INPUT_SIZE, generator=generator)
            if step == bad_step:
                clips[0, 0, 0, 0, 0] = float("nan")
            parts.append(
                ClipBatch(
                    clips=clips,
                    labels=numbers,
                    row=numbers,
                    view=numbers,
                    position=numbers + 2 * part,
                    substituted=(),
                )
            )
        yield parts
        step += 1


def make_trainer(
    folder: Path,
    *,
    name: str = "mae_hiera_micro_16x32",
    mae: MaeConfig = MAE,
    checkpointing: bool = False,
    task: Any = None,
    world: World = SINGLE_PROCESS,
    **settings: Any,
) -> Trainer:
    """Return a trainer of a micro model for one epoch, at the newest checkpoint in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = create_model(
        name, mae=mae, input_size=INPUT_SIZE, drop_path_rate=0.2, checkpointing=checkpointing
    )
    assert isinstance(model, MaskedAutoencoderHiera)
    train = TrainConfig(
        task="pretrain",
        epochs=1,
        batch_size=4,
        accumulate=PARTS,
        log_every=1,
        **{"ema": 0.9, "precision": "fp32", **settings},
    )
    state = make_state(model.train(), OPTIM, train, SINGLE_PROCESS)
    store = CheckpointStore(folder / "checkpoints", keep=1)
    if checkpoint := store.latest():
        state.load(checkpoint)
    pretrain = Pretrain(
        draw_keep=model.draw_keep,
        tokens=model.unit_tokens.numel(),
        visible=model.num_visible_units(),
    )
    return Trainer(
        state,
        task or pretrain,
        optim=OPTIM,
        train=train,
        run=RunInfo(world=world, steps_per_epoch=STEPS, num_videos=4 * STEPS, seed=0),
        store=store,
        log=MetricLog(folder, first_step=state.progress.step),
    )


def train(trainer: Trainer, **kind: Any) -> int:
    assert trainer.log
    code = trainer.fit(batches(trainer.progress.step, **kind), StopSignal())
    trainer.log.close()
    return code


def logged(folder: Path) -> list[dict[str, Any]]:
    """Return what each step logs, without times."""
    names = ("step", "loss_hex", "grad_norm", "feature_std", "effective_rank")
    return [{name: row[name] for name in names} for row in read_metrics(folder / "metrics.jsonl")]


def weights_of(trainer: Trainer) -> list[Tensor]:
    return [*trainer.state.model.state_dict().values(), *trainer.state.weights().values()]


def assert_same(actual: Trainer, expected: Trainer, folders: list[Path]) -> None:
    assert logged(folders[0]) == logged(folders[1])
    assert len(logged(folders[0])) == expected.progress.step
    pairs = zip(weights_of(actual), weights_of(expected), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("mae", MAES, ids=lambda mae: "-".join(map(str, mae.values())) or "recipe")
def test_a_graph_changes_nothing(
    mae: dict[str, Any], emulated_graphs: list[EmulatedGraph], tmp_path: Path
) -> None:
    """Masks, drop path and rate differ from step to step; the graph is captured once."""
    folders = [tmp_path / "graph", tmp_path / "eager"]
    trainers = [
        make_trainer(folder, mae=replace(MAE, **mae), cuda_graph=folder is folders[0])
        for folder in folders
    ]
    assert [train(trainer) for trainer in trainers] == [DONE, DONE]
    assert_same(*trainers, folders)
    assert [graph.replays for graph in emulated_graphs] == [STEPS * PARTS]


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "bf16"},
        {"checkpointing": True},
        {"name": "mae_mvitv2_micro_16x32"},
        {"name": "mae_ladder_c_micro_16x32"},
        {"name": "mae_vit_micro_16x32"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_a_graph_with_other_settings(
    settings: dict[str, Any], emulated_graphs: list[EmulatedGraph], tmp_path: Path
) -> None:
    folders = [tmp_path / "graph", tmp_path / "eager"]
    trainers = [
        make_trainer(folder, cuda_graph=folder is folders[0], **settings) for folder in folders
    ]
    assert [train(trainer) for trainer in trainers] == [DONE, DONE]
    assert_same(*trainers, folders)
    assert [graph.replays for graph in emulated_graphs] == [STEPS * PARTS]


def test_a_resumed_run_equals_one_without_a_stop(
    emulated_graphs: list[EmulatedGraph], tmp_path: Path
) -> None:
    folders = [tmp_path / "resumed", tmp_path / "whole"]
    first = make_trainer(folders[0], cuda_graph=True, save_minutes=1e-9)
    first.last_step = 2
    assert train(first) == DONE
    trainers = [make_trainer(folder, cuda_graph=True) for folder in folders]
    assert trainers[0].progress.step == 2
    assert [train(trainer) for trainer in trainers] == [DONE, DONE]
    assert_same(*trainers, folders)
    assert [graph.replays for graph in emulated_graphs] == [
        2 * PARTS,
        (STEPS - 2) * PARTS,
        STEPS * PARTS,
    ]


def test_a_non_finite_step_leaves_the_weights(
    emulated_graphs: list[EmulatedGraph], tmp_path: Path
) -> None:
    trainers = [make_trainer(tmp_path / str(graph), cuda_graph=graph) for graph in (True, False)]
    assert [train(trainer, bad_step=2) for trainer in trainers] == [NON_FINITE, NON_FINITE]
    assert [trainer.progress.step for trainer in trainers] == [2, 2]
    pairs = zip(*map(weights_of, trainers), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert len(emulated_graphs) == 1


def test_a_cpu_needs_no_graph(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = make_trainer(tmp_path, cuda_graph=True)
    with caplog.at_level(logging.WARNING):
        assert train(trainer) == DONE
    assert trainer.forward_backward.graph and not trainer.forward_backward.graph.captured
    assert "CUDA graph" not in caplog.text


def test_a_graph_of_several_gpus_is_an_error(tmp_path: Path) -> None:
    words = (
        "train.cuda_graph=true: needs a single GPU, and this run has 2; set train.cuda_graph=false"
    )
    with pytest.raises(ConfigError, match=words):
        make_trainer(tmp_path, cuda_graph=True, world=World(0, 2, torch.device("cuda", 0)))


def test_a_graph_of_another_task_is_an_error(tmp_path: Path) -> None:
    class Weighted(Pretrain):
        def __call__(self, model: nn.Module, batch: ClipBatch, context: StepContext) -> TaskOutput:
            return TaskOutput(2 * super().__call__(model, batch, context).loss)

    task = Weighted(draw_keep=lambda count, generators: torch.ones(1), tokens=1)
    words = (
        "train.cuda_graph=true: needs the built-in task Pretrain, and this is Weighted; set "
        "train.cuda_graph=false"
    )
    with pytest.raises(ConfigError, match=words):
        make_trainer(tmp_path, cuda_graph=True, task=task)


def test_a_failed_capture_ends_the_run(
    emulated_graphs: list[EmulatedGraph], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reading(latent: Tensor) -> tuple[Tensor, Tensor]:
        return latent.sum() * latent.mean().item(), latent.sum()

    monkeypatch.setattr("hiera_video.train.tasks.collapse_monitors", reading)
    words = (
        "train.cuda_graph=true: the capture failed: operation not permitted when stream is "
        "capturing; set train.cuda_graph=false"
    )
    with pytest.raises(ConfigError, match=words):
        train(make_trainer(tmp_path, cuda_graph=True))


def test_out_of_memory_names_the_graph(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, cuda_graph=True)

    def hungry(*inputs: Any) -> None:
        raise torch.OutOfMemoryError

    trainer.forward_backward.graph = GraphedBackward(hungry, [])
    with pytest.raises(DeviceMemoryError, match=r"; set train.cuda_graph=false; "):
        train(trainer)


def test_a_graph_is_for_pretraining() -> None:
    words = "train.cuda_graph=true: needs train.task=pretrain, and it is classify; set"
    with pytest.raises(ConfigError, match=words):
        load_config("configs/motion_hiera_micro.yaml", ["train.cuda_graph=true"])
