"""Training steps on a GPU: every task, faults, precision, memory, compilation, resumed runs."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_helpers import (
    batches_from,
    check_captured_steps,
    difference,
    make_batch,
    make_state_on,
    make_trainer,
    train,
    weights_of,
)
from torch import nn

from hiera_video.errors import DeviceMemoryError
from hiera_video.runtime.distributed import World
from hiera_video.runtime.log import MetricLog, read_metrics
from hiera_video.runtime.seed import use_deterministic_kernels
from hiera_video.runtime.signals import StopSignal
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.train.config import OptimConfig, TrainConfig
from hiera_video.train.memory import choose_accumulation, trial_step
from hiera_video.train.trainer import DONE, NON_FINITE, Trainer

pytestmark = pytest.mark.gpu
TASKS: dict[str, dict[str, Any]] = {
    "classify": {},
    "mixed": {"mixing": 0.8},
    "multi_label": {"multi_label": True},
    "sgd": {"optim": OptimConfig(name="sgd", lr=1e-2, clip_grad=1.0)},
    "pretrain": {"mae": {}},
    "pretrain_half_decoder": {"mae": {"decoder_tokens": "running_cell"}},
    "pretrain_random_tokens": {"mae": {"decoder_tokens": "random"}},
    "pretrain_tubes": {"mae": {"masking": "tube", "mask_ratio": 0.5}},
    "pretrain_future": {"mae": {"masking": "future", "mask_ratio": 0.5}},
    "pretrain_hog": {"mae": {"target": "hog"}},
    "pretrain_all_frames": {"mae": {"target_frames": "all"}},
    "pretrain_graph": {"mae": {}, "task": "pretrain", "cuda_graph": True},
}
SYNC_FREE = (
    *("classify", "mixed", "multi_label", "sgd", "pretrain", "pretrain_half_decoder"),
    *("pretrain_hog", "pretrain_graph"),
)


@pytest.mark.parametrize("name", TASKS)
def test_two_steps_equal_those_of_the_cpu(name: str, device: torch.device) -> None:
    kind = dict(TASKS[name])
    multi_label = {"multi_label": True} if kind.get("multi_label") else {}
    actual, expected = (make_trainer(one, **kind) for one in (device, torch.device("cpu")))
    before = weights_of(expected)
    for trainer in (actual, expected):
        assert train(trainer, 2, **multi_label) == DONE
        assert trainer.progress.step == 2
    moved = difference(weights_of(expected), before)
    assert moved > 1e-3
    # AdamW divides by the gradient's size: where that is rounding only, as for the keys' biases,
    # the direction of the update is arbitrary
    assert difference(weights_of(actual), weights_of(expected)) <= 0.15 * moved


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["classify", "pretrain"])
def test_half_precision_reduces_the_loss(name: str, precision: str, device: torch.device) -> None:
    if device.type == "cpu" and precision == "fp16":
        pytest.skip("needs a CUDA device")
    trainer = make_trainer(device, precision=precision, drop_path=0.0, **TASKS[name])
    folder_losses = losses_of(trainer, 30)
    assert trainer.state.scaler.is_enabled() == (precision == "fp16")
    assert sum(folder_losses[-5:]) < 0.9 * sum(folder_losses[:5])


def losses_of(trainer: Trainer, steps: int) -> list[float]:
    """Train on one batch and return each step's loss."""
    found: list[float] = []
    end_step = trainer.end_step

    def record(stats: Any, stop: StopSignal) -> int | None:
        found.append(stats.averages["loss"])
        return end_step(stats, stop)

    trainer.end_step = record  # type: ignore[method-assign]
    trainer.last_step = steps
    assert trainer.fit(itertools.repeat([make_batch()]), StopSignal()) == DONE
    assert len(found) == steps
    return found


@pytest.mark.parametrize("name", ["classify", "sgd", "pretrain", "pretrain_graph"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_non_finite_step_leaves_the_weights(
    name: str, precision: str, device: torch.device, tmp_path: Path, caplog: Any
) -> None:
    if device.type == "cpu" and precision == "fp16":
        pytest.skip("needs a CUDA device")
    use_deterministic_kernels()
    kind = {"precision": precision, "ema": 0.9, **TASKS[name]}
    expected = make_trainer(device, **kind)
    assert train(expected, 2) == DONE
    store = CheckpointStore(tmp_path / "checkpoints", keep=1)
    trainer = make_trainer(device, store=store, **kind)
    with caplog.at_level(logging.ERROR):
        assert train(trainer, 5, bad_step=2) == NON_FINITE
    assert trainer.progress.step == 2
    assert "step 2: loss nan" in caplog.text
    facts = json.loads((tmp_path / "non_finite.json").read_text())
    assert facts["step"] == 2 and facts["rows_by_rank"] == [[[20, 21, 22, 23]]]
    assert difference(weights_of(trainer), weights_of(expected)) == 0
    averages = [one.state.eval_model for one in (trainer, expected)]
    assert averages[0] is not trainer.state.model
    pairs = zip(*(model.parameters() for model in averages), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_averaged_weights(device: torch.device) -> None:
    trainer = make_trainer(device, ema=0.5)
    train(trainer, 1)
    first = weights_of(trainer)
    train(trainer, 1)
    second, averages = weights_of(trainer), trainer.state.eval_model
    assert averages is not trainer.state.model
    for name, value in averages.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value.cpu(), (first[name] + second[name]) / 2)


@pytest.mark.parametrize("name", SYNC_FREE)
def test_steps_do_not_wait_for_the_device(name: str, cuda: torch.device) -> None:
    """No call of a steady step makes the host wait; torch raises an error at the first one."""
    kind = dict(TASKS[name])
    multi_label = {"multi_label": True} if kind.get("multi_label") else {}
    trainer = make_trainer(cuda, precision="bf16", ema=0.9, log_every=1000, **kind)
    trainer.last_step = 10
    batches = batches_from(0, **multi_label)

    def strict() -> Iterator[Any]:
        for step, batch in enumerate(batches):
            # the feed reads ahead; after three batches, step 1 has begun
            torch.cuda.set_sync_debug_mode("error" if 4 <= step <= 8 else "default")
            yield batch

    try:
        assert trainer.fit(strict(), StopSignal()) == DONE
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.progress.step == 10


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(
    "mae", [{}, {"decoder_tokens": "running_cell"}, {"target": "hog"}], ids=str
)
def test_a_captured_step_equals_the_eager_one(
    precision: str, mae: dict[str, Any], cuda: torch.device
) -> None:
    use_deterministic_kernels()
    kind = {"precision": precision, "task": "pretrain", "mae": mae}
    graphed, eager = (make_trainer(cuda, cuda_graph=graph, **kind) for graph in (True, False))
    assert [train(trainer, 4) for trainer in (graphed, eager)] == [DONE, DONE]
    assert graphed.forward_backward.graph and graphed.forward_backward.graph.captured
    assert difference(weights_of(graphed), weights_of(eager)) == 0


@pytest.mark.parametrize("change", ["checkpointing", "accumulate"])
def test_a_captured_step_with_other_settings(change: str, cuda: torch.device) -> None:
    check_captured_steps(cuda, change)


@pytest.mark.parametrize("name", ["classify", "pretrain", "pretrain_graph"])
def test_resuming_gives_the_same_bits(name: str, device: torch.device, tmp_path: Path) -> None:
    use_deterministic_kernels()
    kind = {"precision": "bf16", "ema": 0.9, "steps_per_epoch": 3, "epochs": 2, **TASKS[name]}
    runs = {}
    for resume in (False, True):
        folder = tmp_path / str(resume)
        folder.mkdir()
        for _ in range(2 if resume else 1):
            store = CheckpointStore(folder / "checkpoints", keep=5)
            state, checkpoint = None, store.latest()
            if checkpoint:
                config = TrainConfig(batch_size=4, epochs=2, precision="bf16", ema=0.9)
                optim = OptimConfig(lr=1e-3, clip_grad=1.0)
                state = make_state_on(device, mae=kind.get("mae"), train=config, optim=optim)
                state.load(checkpoint)
            first = state.progress.step if state else 0
            log = MetricLog(folder, first_step=first)
            stop = first + 3 if resume else 6
            trainer = make_trainer(device, store=store, log=log, state=state, log_every=1, **kind)
            trainer.last_step = stop
            assert trainer.fit(batches_from(first), StopSignal()) == DONE
            log.close()
        runs[resume] = (
            weights_of(trainer),
            [row["loss_hex"] for row in read_metrics(folder / "metrics.jsonl")],
        )
    assert len(runs[False][1]) == 6
    assert runs[True][1] == runs[False][1]
    assert all(torch.equal(runs[True][0][name], value) for name, value in runs[False][0].items())


def test_out_of_memory_is_explained(cuda: torch.device) -> None:
    class Hungry(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, clips: torch.Tensor, **arguments: Any) -> torch.Tensor:
            torch.empty(1 << 48, dtype=torch.uint8, device=clips.device)
            return clips

    trainer = make_trainer(cuda)
    trainer.forward_backward.model = Hungry(trainer.forward_backward.model)
    words = r"step 0: out of memory on the device; raise train.accumulate \(now 1\)"
    with pytest.raises(DeviceMemoryError, match=words):
        train(trainer, 1)


def test_automatic_accumulation(cuda: torch.device, caplog: Any) -> None:
    step = trial_step(make_trainer(cuda), clip=(3, 16, 32, 32), repeats=1, num_labels=None)
    world = World(0, 1, cuda)
    with caplog.at_level(logging.INFO):
        assert choose_accumulation(step, 8, world, sharded=False) == 1
        assert choose_accumulation(step, 8, world, sharded=True) == 1
    assert "train.batch_size=auto: train.accumulate=1, micro-batches of 8 videos" in caplog.text

    def limited(videos: int) -> None:
        if videos > 2:
            torch.empty(1 << 48, dtype=torch.uint8, device=cuda)
        step(videos)

    assert choose_accumulation(limited, 8, world, sharded=False) == 4
