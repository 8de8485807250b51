"""The loop stops before damage, and what all ranks agree on."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hiera_video.data.loading.loader import ClipBatch
from hiera_video.errors import DeviceMemoryError
from hiera_video.models.factory import create_model
from hiera_video.runtime.distributed import World
from hiera_video.runtime.log import MetricLog, read_metrics
from hiera_video.runtime.precision import autocast
from hiera_video.runtime.signals import StopSignal
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.train.config import OptimConfig, TrainConfig
from hiera_video.train.loop import BROKEN_LIMIT, DONE, NON_FINITE, Evaluator, Run, fit
from hiera_video.train.meter import BROKEN_NAMED, BrokenWatch, agree
from hiera_video.train.state import TrainState, averaged
from hiera_video.train.tasks import Task, TaskOutput

HERE = World(0, 1, torch.device("cpu"))


class Sometimes:
    """A loss that becomes NaN (or whose gradient becomes infinite) at one step."""

    def __init__(self, at: int, kind: str) -> None:
        self.at, self.kind = at, kind

    def __call__(self, model: nn.Module, batch: ClipBatch, step: int) -> TaskOutput:
        loss = model(batch.clips).square().mean()
        if step == self.at:
            loss = (
                loss * float("nan")
                if self.kind == "loss"
                else loss + (model.weight.sum() * 0).sqrt()
            )  # type: ignore[operator]
        return TaskOutput(loss)


def batches() -> Iterator[list[ClipBatch]]:
    ids = torch.arange(2)
    while True:
        yield [
            ClipBatch(
                clips=torch.ones(2, 3),
                labels=ids,
                row=ids + 40,
                view=ids,
                position=ids,
                substituted=(),
            )
        ]


def run_fit(
    folder: Path,
    task: Task,
    *,
    source: Iterator[list[ClipBatch]] | None = None,
    state: TrainState | None = None,
    optim: OptimConfig | None = None,
    evaluator: Evaluator | None = None,
    stop: StopSignal | None = None,
    max_broken: float = 0.05,
    **train: Any,
) -> tuple[int, nn.Linear, list[torch.Tensor]]:
    """Three passes of two steps; returns the exit code, the model and its weights before each step."""
    folder.mkdir(exist_ok=True)
    state = state or linear_state()
    model = state.model
    assert isinstance(model, nn.Linear)
    history: list[torch.Tensor] = []
    model.register_forward_pre_hook(
        lambda module, inputs: history.append(model.weight.detach().clone())
    )
    log = MetricLog(folder, first_step=0)
    run = Run(
        folder=folder, world=HERE, store=CheckpointStore(folder / "checkpoints", keep=2), log=log, steps_per_epoch=2,
        num_videos=4,
        max_broken=max_broken, seed=0, flops_per_clip=6.0, meta={},
    )  # fmt: skip
    code = fit(
        state, task, source or batches(), evaluator, optim=optim or OptimConfig(lr=0.1),
        train=TrainConfig(**{"epochs": 3, "batch_size": 2, "log_every": 1, **train}), run=run, stop=stop or StopSignal(),
    )  # fmt: skip
    log.close()
    return code, model, history


def linear_state(*, ema: float | None = None, fp16: bool = False) -> TrainState:
    """Three inputs, one output, plain SGD."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD([{"params": list(model.parameters()), "lr_scale": 1.0}], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", enabled=fp16)
    return TrainState(model=model, optimizer=optimizer, scaler=scaler, ema=averaged(model, ema))


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_non_finite_step_changes_no_weight_and_names_its_rows(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    code, model, history = run_fit(tmp_path, Sometimes(3, kind))
    assert code == NON_FINITE
    assert torch.equal(model.weight, history[-1]) and len(history) == 4
    told = json.loads((tmp_path / "non_finite.json").read_text())
    assert told["step"] == 3 and told["rows_by_rank"] == [[[40, 41]]]
    found = CheckpointStore(tmp_path / "checkpoints", keep=2).latest()
    assert (
        found is not None and found.meta["step"] == 2
    )  # the end of the first pass, nothing after it
    assert "stopped before the weights changed" in caplog.text and "lower optim.lr" in caplog.text


def test_a_run_to_its_end_logs_every_step(tmp_path: Path) -> None:
    code, _, history = run_fit(tmp_path, Sometimes(-1, "loss"))
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert code == DONE and [row["step"] for row in rows] == list(range(6)) and len(history) == 6
    assert rows[0]["lr"] == pytest.approx(0.1) and rows[5]["lr"] < rows[4]["lr"]
    assert all(float.fromhex(row["loss_hex"]) == row["loss"] for row in rows)


def test_passes_are_kept_for_good_where_asked(tmp_path: Path) -> None:
    run_fit(tmp_path, Sometimes(-1, "loss"), epochs=8, keep_every=3)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [
        "last",
        "pass_00003",
        "pass_00006",
        *(f"step_{step:08d}" for step in (6, 12, 14, 16)),
    ]
    assert (tmp_path / "checkpoints/pass_00003").resolve().name == "step_00000006"


def test_what_loading_draws_does_not_reach_dropout(tmp_path: Path) -> None:
    """A loader draws from the global generator when it starts, at whatever step that is."""

    class Drawing:
        def __init__(self) -> None:
            self.drawn: list[float] = []

        def __call__(self, model: nn.Module, batch: ClipBatch, step: int) -> TaskOutput:
            self.drawn.append(float(torch.rand(())))
            return TaskOutput(model(batch.clips).square().mean())

    def noisy(at: int) -> Iterator[list[ClipBatch]]:
        for step, batch in enumerate(batches()):
            torch.rand(3 if step == at else 0)
            yield batch

    draws = []
    for at in (0, 2):
        task = Drawing()
        run_fit(tmp_path / str(at), task, source=noisy(at))
        draws.append(task.drawn)
    assert draws[0] == draws[1] and len(set(draws[0])) == 6


def test_gradients_are_clipped_to_the_norm_and_it_is_logged(tmp_path: Path) -> None:
    class Steep(Sometimes):
        def __call__(self, model: nn.Module, batch: ClipBatch, step: int) -> TaskOutput:
            model(batch.clips)  # for the history
            return TaskOutput(30 * model.weight[0, 0] + 40 * model.weight[0, 1])  # type: ignore[index, operator]

    _, _, history = run_fit(
        tmp_path, Steep(-1, ""), optim=OptimConfig(lr=0.1, clip_grad=1.0, min_lr=0.1)
    )
    assert (history[0] - history[1]).tolist()[0] == pytest.approx(
        [0.06, 0.08, 0.0]
    )  # 0.1 × (30, 40) / 50
    assert read_metrics(tmp_path / "metrics.jsonl")[0]["grad_norm"] == pytest.approx(50)


def test_a_loss_above_the_limit_stops_as_one_that_is_not_finite(tmp_path: Path) -> None:
    class Explodes(Sometimes):
        def __call__(self, model: nn.Module, batch: ClipBatch, step: int) -> TaskOutput:
            loss = model(batch.clips).square().mean()
            return TaskOutput(loss + 100.0 * (step == 2))

    assert run_fit(tmp_path / "high", Explodes(2, "loss"), max_loss=50.0)[0] == NON_FINITE
    assert run_fit(tmp_path / "low", Explodes(2, "loss"), max_loss=150.0)[0] == DONE
    assert run_fit(tmp_path / "none", Explodes(2, "loss"))[0] == DONE


def test_the_best_is_the_highest_finite_score_of_the_averaged_weights(tmp_path: Path) -> None:
    class Scores:
        score, higher_is_better = "top1", True

        def __init__(self) -> None:
            self.answers, self.seen = iter([float("nan"), 0.5, 0.25]), list[nn.Module]()

        def __call__(self, model: nn.Module) -> dict[str, float]:
            self.seen.append(model)
            return {"top1": next(self.answers)}

    scores, state = Scores(), linear_state(ema=0.9)
    assert run_fit(tmp_path, Sometimes(-1, ""), state=state, evaluator=scores)[0] == DONE
    assert (
        state.progress.best == 0.5
        and (tmp_path / "checkpoints" / "best").resolve().name == "step_00000004"
    )
    assert state.ema and scores.seen == [state.ema.module] * 3


def test_fp16_skips_a_step_with_infinite_gradients_and_halves_its_scale(tmp_path: Path) -> None:
    state = linear_state(fp16=True)
    assert state.scaler.get_scale() == 65536
    code, _, history = run_fit(tmp_path, Sometimes(3, "gradient"), state=state)
    assert code == DONE and state.scaler.get_scale() == 32768
    assert torch.equal(history[3], history[4]) and not torch.equal(history[4], history[5])
    found = CheckpointStore(tmp_path / "checkpoints", keep=2).latest()
    assert found is not None and found.state["scaler"]["scale"] == 32768
    resumed = linear_state(fp16=True)
    resumed.load(found)
    assert resumed.scaler.get_scale() == 32768


def test_fp16_stops_where_no_scale_helps(tmp_path: Path) -> None:
    class Always(Sometimes):
        def __call__(self, model: nn.Module, batch: ClipBatch, step: int) -> TaskOutput:
            self.at = step
            return super().__call__(model, batch, step)

    code, model, history = run_fit(
        tmp_path, Always(0, "gradient"), state=linear_state(fp16=True), epochs=20
    )
    assert code == NON_FINITE and len(history) == 17  # 65536 is halved 16 times
    assert torch.equal(model.weight, history[0])


def broken_at(*steps: int) -> Iterator[list[ClipBatch]]:
    for step in itertools.count():
        substituted = (("b.mp4", "empty"),) if step in steps else ()
        yield [replace(batch, substituted=substituted) for batch in next(batches())]


def test_the_limit_of_broken_videos_is_of_whole_passes_and_each_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # one of four videos is broken, which 0.25 allows: it may come at the start of the second pass, too
    assert (
        run_fit(tmp_path / "a", Sometimes(-1, ""), source=broken_at(1, 2, 5), max_broken=0.25)[0]
        == DONE
    )
    assert caplog.text.count("b.mp4: cannot be read (empty); another video takes its place") == 1
    assert (
        run_fit(tmp_path / "b", Sometimes(-1, ""), source=broken_at(0, 2), max_broken=0.2)[0]
        == BROKEN_LIMIT
    )
    assert (
        "a broken video came 1 times in 1 passes over 4 videos, which is over data.max_broken=0.2;"
        in caplog.text
    )


def test_broken_videos_are_counted_where_they_are_too_many_to_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = BrokenWatch()
    watch.look((f"{number}.mp4", "empty") for number in range(BROKEN_NAMED + 5))
    assert caplog.text.count("another video takes its place") == BROKEN_NAMED
    assert caplog.text.count("tools/check_data.py names them all") == 1


def test_a_full_device_is_one_line_with_the_knobs(tmp_path: Path) -> None:
    class Full(Sometimes):
        def __call__(self, model: nn.Module, batch: ClipBatch, step: int) -> TaskOutput:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    words = r"step 0: .* raise train.accumulate \(now 1: .*set model.checkpointing=true .*lower train.batch_size \(now 2\)"
    with pytest.raises(DeviceMemoryError, match=words):
        run_fit(tmp_path, Full(0, ""))


def test_averages_are_sums_over_counts() -> None:
    logs = {"loss": (torch.tensor(6.0), 4), "top1": (torch.tensor(1), 2)}
    agreed = agree(logs, broken=3, signal=15, save_due=False, world=HERE)
    assert agreed.averages == {"loss": 1.5, "top1": 0.5}
    assert (agreed.clips, agreed.broken, agreed.signal, agreed.save_due) == (4, 3, 15, False)


class Others(World):
    """This rank of two, the other one's numbers given."""

    def __init__(self, theirs: torch.Tensor) -> None:
        super().__init__(0, 2, torch.device("cpu"))
        object.__setattr__(self, "theirs", theirs)

    def all_reduce(self, values: torch.Tensor) -> torch.Tensor:
        return values + self.theirs  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("here", "there", "both"), [(10, 15, 10), (15, 10, 10), (2, 15, 15), (0, 2, 2), (0, 0, 0)]
)
def test_ranks_that_received_different_signals_agree_on_one_of_them(
    here: int, there: int, both: int
) -> None:
    given = {"broken": 0, "save_due": False}
    logs = {"loss": (torch.tensor(1.0), 1)}
    theirs: list[torch.Tensor] = []

    class Listening(World):
        def all_reduce(self, values: torch.Tensor) -> torch.Tensor:
            theirs.append(values.clone())
            return values

    agree(logs, signal=there, world=Listening(1, 2, torch.device("cpu")), **given)  # type: ignore[arg-type]
    assert agree(logs, signal=here, world=Others(theirs[0]), **given).signal == both  # type: ignore[arg-type]


class Signalled:
    """A validation that takes its time, during which a signal comes."""

    score, higher_is_better = "top1", True

    def __call__(self, model: nn.Module) -> dict[str, float]:
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGUSR1)
        return {"top1": 50.0}


def test_a_signal_during_validation_stops_without_a_further_step(tmp_path: Path) -> None:
    with StopSignal() as stop:
        code, _, history = run_fit(
            tmp_path, Sometimes(-1, "loss"), evaluator=Signalled(), stop=stop
        )
    found = CheckpointStore(tmp_path / "checkpoints", keep=2).latest()
    assert code == 128 + signal.SIGUSR1 and len(history) == 2
    assert found is not None and found.meta["step"] == 2


def test_validation_is_no_training_time(tmp_path: Path) -> None:
    class Slow(Signalled):
        def __call__(self, model: nn.Module) -> dict[str, float]:
            time.sleep(1)
            return {"top1": 50.0}

    run_fit(tmp_path, Sometimes(-1, "loss"), evaluator=Slow(), epochs=2, eval_every=1)
    after = [row for row in read_metrics(tmp_path / "metrics.jsonl") if row["split"] == "train"][2]
    assert 2 / after["clips_per_second"] < 1  # two clips, and a second of validation before them


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_gives_the_gradients_of_full_precision(precision: str) -> None:
    torch.manual_seed(0)
    model, clips, labels = (
        create_model("hiera_micro_16x32", num_classes=3),
        torch.randn(2, 3, 16, 32, 32),
        [0, 1],
    )
    norms = {}
    for name in ("fp32", precision):
        model.zero_grad()
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0, enabled=name == "fp16")
        with autocast(name, HERE.device):
            logits = model(clips)
            loss = nn.functional.cross_entropy(logits.float(), torch.tensor(labels))
        assert (
            logits.dtype
            == {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
        )
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        norms[name] = nn.utils.get_total_norm(
            [p.grad for p in model.parameters() if p.grad is not None]
        )
        norms[name] /= scaler.get_scale()
    assert norms[precision].item() == pytest.approx(norms["fp32"].item(), rel=0.01)
