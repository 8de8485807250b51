"""No call of a steady step reads the device, and reading late changes no result.

On a GPU: tests/gpu/test_steps.py.
"""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hiera_video.data.config import AugmentConfig
from hiera_video.data.loading.loader import ClipBatch
from hiera_video.models.factory import create_model
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.registry import MaeConfig
from hiera_video.runtime.device_feed import HostCopy
from hiera_video.runtime.distributed import SINGLE_PROCESS
from hiera_video.runtime.log import MetricLog, read_metrics
from hiera_video.runtime.signals import StopSignal
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.train.config import OptimConfig, TrainConfig
from hiera_video.train.context import StepContext
from hiera_video.train.state import make_state
from hiera_video.train.tasks import Classify, Pretrain, Task, TaskOutput
from hiera_video.train.trainer import DONE, NON_FINITE, RunInfo, Trainer

READS: set[Any] = {
    Tensor.item,
    Tensor.tolist,
    Tensor.cpu,
    Tensor.numpy,
    Tensor.new_tensor,  # copies the host's numbers, and waits for the copy
    Tensor.nonzero,
    torch.nonzero,
    torch.masked_select,
    torch.unique,
    *(getattr(Tensor, f"__{name}__") for name in ("bool", "float", "int", "index")),
}


class HostReads(TorchFunctionMode):
    """Collects the calls for which the host would wait for a device.

    All tensors are on the CPU here; those that are there on a GPU too are named in `on_cpu`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.on_cpu: list[Tensor] = []
        self.found: list[str] = []

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call `function`, and note it if it reads its first argument."""
        indexed = function is Tensor.__getitem__ and _has_mask(args[1])
        reads = function in READS or indexed or (function is torch.where and len(args) == 1)
        if reads and not any(args[0] is tensor for tensor in self.on_cpu):
            self.found.append(function.__name__)
        return function(*args, **(kwargs or {}))


def _has_mask(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, Tensor) and part.dtype == torch.bool for part in parts)


@pytest.fixture(params=["cuda", "cpu"], ids=["read_at_once", "read_late"])
def late(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr("hiera_video.train.trainer.QUEUED_DEVICES", (request.param,))
    return bool(request.param == "cpu")


def batch_of(step: int, *, multi_label: bool = False) -> ClipBatch:
    clips = torch.randn(2, 3, 16, 32, 32, generator=torch.Generator().manual_seed(step))
    numbers = torch.arange(2)
    return ClipBatch(
        clips=clips,
        labels=torch.eye(3)[:2] if multi_label else numbers,
        row=numbers + 10 * step,
        view=numbers,
        position=numbers,
        substituted=(),
    )


def batches(first: int = 0, **kind: Any) -> Iterator[list[ClipBatch]]:
    step = first
    while True:
        yield [batch_of(step, **kind)]
        step += 1


def make_trainer(
    task: Callable[[nn.Module], Task] | None = None,
    *,
    name: str = "hiera_micro_16x32",
    mae: dict[str, Any] | None = None,
    steps: int = 6,
    folder: Path | None = None,
    optim: dict[str, Any] | None = None,
) -> Trainer:
    """Return a trainer of a micro model for one epoch, with averaged weights and clipping."""
    torch.manual_seed(0)
    arguments: dict[str, Any] = {"num_classes": 3}
    if name.startswith("mae"):
        arguments = {"mae": MaeConfig(**(mae or {}))}
    model = create_model(name, drop_path_rate=0.1, **arguments).train()
    train = TrainConfig(epochs=1, batch_size=2, ema=0.9, log_every=1 if folder else 1000)
    config = OptimConfig(**{"lr": 1e-2, "clip_grad": 1.0, "warmup_epochs": 0.0, **(optim or {})})
    return Trainer(
        make_state(model, config, train, SINGLE_PROCESS),
        task(model) if task else classify()(model),
        optim=config,
        train=train,
        run=RunInfo(world=SINGLE_PROCESS, steps_per_epoch=steps, num_videos=9, seed=0),
        store=CheckpointStore(folder / "checkpoints", keep=9) if folder else None,
        log=MetricLog(folder, first_step=0) if folder else None,
    )


def classify(mixing: float = 0.0, *, multi_label: bool = False) -> Callable[[nn.Module], Task]:
    augment = AugmentConfig(mixup=mixing, cutmix=mixing)
    weights = (0.5, 1.0, 1.5)
    return lambda model: Classify(
        num_classes=3, multi_label=multi_label, augment=augment, class_weights=weights
    )


def pretrain(model: nn.Module) -> Task:
    assert isinstance(model, MaskedAutoencoderHiera)
    return Pretrain(
        draw_keep=model.draw_keep,
        tokens=model.unit_tokens.numel(),
        visible=model.num_visible_units(),
    )


def everything(trainer: Trainer) -> dict[str, Tensor]:
    """Return weights, optimizer state and averaged weights."""
    state = trainer.state
    assert state.ema is not None
    found = {f"weights.{name}": value for name, value in state.model.state_dict().items()}
    found |= {f"average.{name}": value for name, value in state.ema.module.state_dict().items()}
    for number, values in state.optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{number}.{name}": value for name, value in values.items()}
    return {name: value.clone() for name, value in found.items()}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys() and len(expected) > 100
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        (classify(), {}),
        (classify(mixing=0.8), {}),
        (classify(multi_label=True), {"multi_label": True}),
        (pretrain, {}),
        (pretrain, {"target": "hog"}),
    ],
    ids=["classify", "mixed", "multi_label", "pretrain", "hog"],
)
def test_a_steady_step_reads_nothing_from_the_device(
    task: Callable[[nn.Module], Task],
    kind: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hiera_video.train.trainer.QUEUED_DEVICES", ("cpu",))
    name = "mae_hiera_micro_16x32" if task is pretrain else "hiera_micro_16x32"
    reads = HostReads()
    mae = kind if task is pretrain else None
    trainer = make_trainer(task, name=name, mae=mae)

    def result(copy: HostCopy) -> Tensor:
        reads.on_cpu.append(copy.tensor)
        return copy.tensor

    def noted() -> Iterator[list[ClipBatch]]:
        for batch in batches(**({} if mae is not None else kind)):
            reads.on_cpu += [batch[0].position, batch[0].row]
            yield batch

    monkeypatch.setattr(HostCopy, "result", result)
    # the model counts a mask's units on a CPU only; on a GPU it takes `visible` for their number
    for module in ("hiera", "mae"):
        monkeypatch.setattr(
            f"hiera_video.models.{module}.count_visible", lambda keep, *sizes, trusted: sizes[-1]
        )
    with reads:
        assert trainer.fit(noted(), StopSignal()) == DONE
    assert trainer.progress.step == 6 and reads.found == []


def test_reads_are_counted() -> None:
    """Test the counter itself."""
    values, host = torch.tensor([1.0, 2.0]), torch.tensor([3])
    with HostReads() as reads:
        reads.on_cpu.append(host)
        assert values[0] < 2 and values.tolist() and values[1].item() and float(values[0])
        values[values > 1], host.tolist(), torch.where(values > 1), values.new_tensor([1.0])
    assert sorted(reads.found) == [
        "__bool__",
        "__float__",
        "__getitem__",
        "item",
        "new_tensor",
        "tolist",
        "where",
    ]


def test_reading_late_gives_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = {}
    for device in ("cuda", "cpu"):
        monkeypatch.setattr("hiera_video.train.trainer.QUEUED_DEVICES", (device,))
        folder = tmp_path / device
        folder.mkdir()
        trainer = make_trainer(folder=folder, steps=4)
        assert trainer.fit(batches(), StopSignal()) == DONE
        assert trainer.log is not None
        trainer.log.close()
        rows = read_metrics(folder / "metrics.jsonl")
        numbers = [(row["step"], row["loss_hex"], row["grad_norm"], row["lr"]) for row in rows]
        runs[device] = everything(trainer), numbers
    assert [row[0] for row in runs["cpu"][1]] == [0, 1, 2, 3]
    assert runs["cpu"][1] == runs["cuda"][1]
    assert_equal(runs["cpu"][0], runs["cuda"][0])


class Poisoned:
    """Classification whose loss is NaN at step 2, and which counts its calls."""

    def __init__(self, model: nn.Module) -> None:
        self.task, self.steps = classify()(model), list[int]()

    def __call__(self, model: nn.Module, batch: ClipBatch, context: StepContext) -> TaskOutput:
        """Return the loss."""
        self.steps.append(context.step)
        output = self.task(model, batch, context)
        return TaskOutput(output.loss * (float("nan") if context.step == 2 else 1.0))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_refused_step_leaves_weights_optimizer_and_averages(
    late: bool, optimizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = make_trainer(optim={"name": optimizer})
    expected.last_step = 2
    assert expected.fit(batches(), StopSignal()) == DONE
    trainer = make_trainer(Poisoned, folder=tmp_path, optim={"name": optimizer})
    with caplog.at_level(logging.ERROR):
        assert trainer.fit(batches(), StopSignal()) == NON_FINITE
    steps = trainer.forward_backward.task.steps  # type: ignore[attr-defined]
    assert steps == ([0, 1, 2, 3] if late else [0, 1, 2])
    assert_equal(everything(trainer), everything(expected))
    assert trainer.progress.step == 2 and "step 2: loss nan, gradient norm nan" in caplog.text
    report = json.loads((tmp_path / "non_finite.json").read_text())
    assert report["step"] == 2 and report["rows_by_rank"] == [[[20, 21]]]
    assert CheckpointStore(tmp_path / "checkpoints", keep=9).latest() is None


def test_a_signal_saves_a_step_whose_statistics_were_read(late: bool, tmp_path: Path) -> None:
    """The checkpoint is that of the last logged step, and the run resumes from it bit for bit."""
    expected = make_trainer(steps=5)
    assert expected.fit(batches(), StopSignal()) == DONE
    trainer = make_trainer(folder=tmp_path, steps=5)

    def signalled() -> Iterator[list[ClipBatch]]:
        for step, batch in enumerate(batches()):
            if step == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with StopSignal() as stop:
        assert trainer.fit(signalled(), stop) == 128 + signal.SIGTERM
    found = trainer.store.latest() if trainer.store else None
    assert found is not None and found.meta["step"] == trainer.progress.step == 2
    assert trainer.log is not None
    trainer.log.close()
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1]
    resumed = make_trainer(steps=5)
    resumed.state.load(found)
    resumed.progress = resumed.state.progress
    assert resumed.fit(batches(2), StopSignal()) == DONE
    assert_equal(everything(resumed), everything(expected))
