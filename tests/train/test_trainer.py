"""The training loop: where it stops, what it logs and saves, and what it leaves unchanged."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from linear_run import SquaredOutput, batches, latest_step, linear_state, train
from torch import nn

from hiera_video.data.loading.loader import ClipBatch
from hiera_video.errors import ConfigError, DeviceMemoryError
from hiera_video.models.factory import create_model
from hiera_video.runtime.distributed import SINGLE_PROCESS
from hiera_video.runtime.log import read_metrics
from hiera_video.runtime.precision import autocast
from hiera_video.runtime.signals import StopSignal
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.train.config import OptimConfig, TrainConfig
from hiera_video.train.context import StepContext
from hiera_video.train.tasks import TaskOutput
from hiera_video.train.trainer import (
    DONE,
    NON_FINITE,
    UNREADABLE_LIMIT,
    Evaluator,
    RunInfo,
    Trainer,
)


@pytest.fixture(autouse=True, params=["cuda", "cpu"], ids=["read_at_once", "read_late"])
def queued_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a step's statistics at once, as on a CPU, and one step later, as on a GPU."""
    monkeypatch.setattr("hiera_video.train.trainer.QUEUED_DEVICES", (request.param,))


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_non_finite_step_changes_no_weight_and_its_rows_are_written(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    code, model, history = train(tmp_path, SquaredOutput(3, kind))
    assert code == NON_FINITE
    assert torch.equal(model.weight, history[-1]) and len(history) == 4
    report = json.loads((tmp_path / "non_finite.json").read_text())
    assert report["step"] == 3 and report["rows_by_rank"] == [[[40, 41]]]
    assert latest_step(tmp_path) == 2  # the end of the first epoch
    assert "stopped before the weights changed" in caplog.text and "lower optim.lr" in caplog.text


def test_a_complete_run_logs_every_step(tmp_path: Path) -> None:
    code, _, history = train(tmp_path, SquaredOutput())
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert code == DONE and [row["step"] for row in rows] == list(range(6)) and len(history) == 6
    assert rows[0]["lr"] == pytest.approx(0.1) and rows[5]["lr"] < rows[4]["lr"]
    assert all(float.fromhex(row["loss_hex"]) == row["loss"] for row in rows)


def test_max_steps_ends_the_run_early_on_the_same_schedule(tmp_path: Path) -> None:
    code, _, history = train(tmp_path, SquaredOutput(), trainer={"max_steps": 3})
    rows = read_metrics(tmp_path / "metrics.jsonl")
    train(tmp_path / "full", SquaredOutput())
    full = read_metrics(tmp_path / "full" / "metrics.jsonl")
    assert code == DONE and len(history) == 3
    assert [row["lr"] for row in rows] == [row["lr"] for row in full[:3]]


def test_without_store_and_log_nothing_is_written(tmp_path: Path) -> None:
    trainer = Trainer(
        linear_state(),
        SquaredOutput(3),
        optim=OptimConfig(),
        train=TrainConfig(epochs=3, batch_size=2),
        run=RunInfo(world=SINGLE_PROCESS, steps_per_epoch=2, num_videos=4, seed=0),
    )
    before = sorted(Path.cwd().iterdir())
    assert trainer.fit(batches(), StopSignal()) == NON_FINITE
    assert sorted(Path.cwd().iterdir()) == before and trainer.progress.step == 3


def test_milestones_are_kept_permanently(tmp_path: Path) -> None:
    train(tmp_path, SquaredOutput(), epochs=8, keep_every=3)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    steps = [f"step_{step:08d}" for step in (6, 12, 14, 16)]
    assert names == ["last", "pass_00003", "pass_00006", *steps]
    assert (tmp_path / "checkpoints/pass_00003").resolve().name == "step_00000006"


def test_a_loader_that_draws_random_numbers_does_not_affect_dropout(tmp_path: Path) -> None:
    """Draw from the global generator at different steps, as a loader does when it starts."""

    class Drawing:
        def __init__(self) -> None:
            self.drawn: list[float] = []

        def __call__(self, model: nn.Module, batch: ClipBatch, context: StepContext) -> TaskOutput:
            self.drawn.append(float(torch.rand(())))
            return TaskOutput(model(batch.clips).square().mean())

    def noisy(at: int) -> Iterator[list[ClipBatch]]:
        for step, batch in enumerate(batches()):
            torch.rand(3 if step == at else 0)
            yield batch

    draws = []
    for at in (0, 2):
        task = Drawing()
        train(tmp_path / str(at), task, loader=noisy(at))
        draws.append(task.drawn)
    assert draws[0] == draws[1] and len(set(draws[0])) == 6


def test_a_task_that_returns_a_bare_loss_is_told_what_to_return(tmp_path: Path) -> None:
    def bare(model: nn.Module, batch: ClipBatch, context: StepContext) -> Any:
        return model(batch.clips).mean()

    words = r"function: returned Tensor; a task must return TaskOutput\(loss, logs\)"
    with pytest.raises(ConfigError, match=words):
        train(tmp_path, bare)


def test_gradients_are_clipped_and_their_norm_is_logged(tmp_path: Path) -> None:
    def steep(model: nn.Module, batch: ClipBatch, context: StepContext) -> TaskOutput:
        model(batch.clips)  # for the history
        return TaskOutput(30 * model.weight[0, 0] + 40 * model.weight[0, 1])  # type: ignore[index, operator]

    optim = OptimConfig(lr=0.1, clip_grad=1.0, min_lr=0.1)
    _, _, history = train(tmp_path, steep, optim=optim)
    change = (history[0] - history[1]).tolist()[0]
    assert change == pytest.approx([0.06, 0.08, 0.0])  # 0.1 × (30, 40) / 50
    assert read_metrics(tmp_path / "metrics.jsonl")[0]["grad_norm"] == pytest.approx(50)


def test_a_loss_above_the_limit_stops_the_run(tmp_path: Path) -> None:
    def explodes(model: nn.Module, batch: ClipBatch, context: StepContext) -> TaskOutput:
        return TaskOutput(model(batch.clips).square().mean() + 100.0 * (context.step == 2))

    assert train(tmp_path / "high", explodes, max_loss=50.0)[0] == NON_FINITE
    assert train(tmp_path / "low", explodes, max_loss=150.0)[0] == DONE
    assert train(tmp_path / "none", explodes)[0] == DONE


def test_fp16_skips_a_step_with_infinite_gradients_and_halves_its_scale(tmp_path: Path) -> None:
    state = linear_state(fp16=True)
    assert state.scaler.get_scale() == 65536
    code, _, history = train(tmp_path, SquaredOutput(3, "gradient"), state=state)
    assert code == DONE and state.scaler.get_scale() == 32768
    assert torch.equal(history[3], history[4]) and not torch.equal(history[4], history[5])
    found = CheckpointStore(tmp_path / "checkpoints", keep=2).latest()
    assert found is not None and found.state["scaler"]["scale"] == 32768
    resumed = linear_state(fp16=True)
    resumed.load(found)
    assert resumed.scaler.get_scale() == 32768


def test_fp16_stops_at_the_smallest_scale(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    class Always(SquaredOutput):
        def __call__(self, model: nn.Module, batch: ClipBatch, context: StepContext) -> TaskOutput:
            self.bad_step = context.step
            return super().__call__(model, batch, context)

    state = linear_state(fp16=True)
    code, model, history = train(tmp_path, Always(0, "gradient"), state=state, epochs=20)
    ahead = "read_late" in request.node.name  # one more forward pass
    assert code == NON_FINITE and len(history) == 17 + ahead  # 65536 is halved 16 times
    assert latest_step(tmp_path) == 16
    assert torch.equal(model.weight, history[0])


def unreadable_at(*steps: int) -> Iterator[list[ClipBatch]]:
    for step in itertools.count():
        substituted = (("b.mp4", "empty"),) if step in steps else ()
        yield [replace(batch, substituted=substituted) for batch in next(batches())]


def test_the_limit_of_unreadable_videos_counts_full_epochs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # one of four videos, which 0.25 allows, may come at the start of the second epoch
    code, _, _ = train(
        tmp_path / "a", SquaredOutput(), loader=unreadable_at(1, 2, 5), max_broken=0.25
    )
    assert code == DONE
    assert caplog.text.count("b.mp4: unreadable (empty); substituted by another video") == 1
    code, _, _ = train(tmp_path / "b", SquaredOutput(), loader=unreadable_at(0, 2), max_broken=0.2)
    assert code == UNREADABLE_LIMIT and latest_step(tmp_path / "b") == 1
    words = "1 unreadable sample in 1 epoch of 4 videos: more than data.max_broken=0.2; list the"
    assert words in caplog.text


def test_out_of_memory_names_the_settings_to_change(tmp_path: Path) -> None:
    def full(model: nn.Module, batch: ClipBatch, context: StepContext) -> TaskOutput:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    words = (
        r"step 0: out of memory on the device; raise train.accumulate \(now 1\) or set it to auto; "
        r"set model.checkpointing=true .*; lower train.batch_size \(now 2\)"
    )
    with pytest.raises(DeviceMemoryError, match=words):
        train(tmp_path, full)


class Validation:
    """A validation of an hour, in which a signal may come."""

    score, higher_is_better = "top1", True

    def __init__(self, number: signal.Signals | None = None) -> None:
        self.signal, self.now = number, 0.0

    def clock(self) -> float:
        """Return the time, which advances by a second at each call."""
        self.now += 1
        return self.now

    def __call__(self, model: nn.Module) -> dict[str, float]:
        self.now += 3600
        if self.signal:
            os.kill(os.getpid(), self.signal)
        return {"top1": 50.0}


def test_a_signal_stops_the_run_before_another_batch_is_loaded(tmp_path: Path) -> None:
    def send(model: nn.Module, batch: ClipBatch, context: StepContext) -> TaskOutput:
        if context.step == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
        return SquaredOutput()(model, batch, context)

    with StopSignal() as stop:
        code, _, history = train(tmp_path, send, loader=itertools.islice(batches(), 3), stop=stop)
    assert code == 128 + signal.SIGUSR1 and len(history) == 3 and latest_step(tmp_path) == 3


def test_a_signal_during_validation_stops_the_run_before_the_next_step(tmp_path: Path) -> None:
    evaluator: Evaluator = Validation(signal.SIGUSR1)
    with StopSignal() as stop:
        code, _, history = train(
            tmp_path, SquaredOutput(), stop=stop, trainer={"evaluator": evaluator}
        )
    assert code == 128 + signal.SIGUSR1 and len(history) == 2
    assert latest_step(tmp_path) == 2


def test_validation_does_not_count_as_training_time(tmp_path: Path) -> None:
    evaluator = Validation()
    train(
        tmp_path,
        SquaredOutput(),
        epochs=2,
        save_minutes=1e9,
        trainer={"evaluator": evaluator, "clock": evaluator.clock},
    )
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if row["split"] == "train"]
    assert len(rows) == 4 and all(2 / row["clips_per_second"] < 20 for row in rows)


def test_a_checkpoint_is_written_when_the_last_one_is_too_old(tmp_path: Path) -> None:
    seconds = itertools.count(step=25)
    train(
        tmp_path,
        SquaredOutput(),
        epochs=1,
        save_minutes=0.5,
        trainer={"clock": lambda: float(next(seconds)), "max_steps": 1},
    )
    assert latest_step(tmp_path) == 1


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_gives_the_gradients_of_full_precision(precision: str) -> None:
    torch.manual_seed(0)
    model, clips = create_model("hiera_micro_16x32", num_classes=3), torch.randn(2, 3, 16, 32, 32)
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    norms = {}
    for name in ("fp32", precision):
        model.zero_grad()
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0, enabled=name == "fp16")
        with autocast(name, SINGLE_PROCESS.device):
            logits = model(clips)
            loss = nn.functional.cross_entropy(logits.float(), torch.tensor([0, 1]))
        assert logits.dtype == dtypes[name]
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norms[name] = nn.utils.get_total_norm(gradients).item() / scaler.get_scale()
    assert norms[precision] == pytest.approx(norms["fp32"], rel=0.01)
