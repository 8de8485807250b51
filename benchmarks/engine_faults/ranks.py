"""R6 and R7: another number of processes. N1: NaN or infinity on one rank. Backend: gloo."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from engine_faults.forks import Fork, Hook, torchrun
from engine_faults.runs import RECIPES, Lab, Result, set_reading, truncate_run
from hiera_video.data.loading.loader import ClipBatch
from hiera_video.runtime.log import read_metrics
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.train.context import StepContext
from hiera_video.train.tasks import Task, TaskOutput
from hiera_video.workflows import train_components

LEG = 5
"""Steps compared after each change of the world size; later, AdamW amplifies rounding."""
TOLERANCE = 1e-5
BAD_STEP = 3


def world_sizes(lab: Lab, count: int) -> Result:
    """Train five steps on one process, five on two and five on one.

    Each leg is compared with the run that kept its number of processes.
    """
    result = Result("R6")
    for number in range(count):
        set_reading(number)
        recipe = RECIPES[number % 2]
        common = ("train.epochs=5", "train.batch_size=4", "train.keep=100", f"seed={number}")
        two = ("train.static_graph=true",) if recipe == "classify" else ()
        result.add(
            f"run {number} ({recipe})", _change_and_back(lab, recipe, common, two, 1, result)
        )
    return result


def sharded(lab: Lab, count: int) -> Result:
    """Repeat R6 with the model and the checkpoints of the two processes sharded."""
    result = Result("R7")
    for number in range(count):
        set_reading(number)
        recipe = RECIPES[(number + 1) % 2]
        common = (
            "train.epochs=15",
            "train.eval_every=5",
            "train.batch_size=8",
            "train.keep=100",
            f"seed={number}",
        )
        common += ("model.checkpointing=true", "optim.clip_grad=0.5", "optim.layer_decay=0.8")
        common += ("train.precision=bf16",) if number % 4 > 1 else ("train.precision=fp32",)
        two = ("train.parallel=fsdp", "train.checkpoint=sharded")
        result.add(
            f"run {number} ({recipe})", _change_and_back(lab, recipe, common, two, 2, result)
        )
    return result


def _change_and_back(
    lab: Lab,
    recipe: str,
    common: tuple[str, ...],
    on_two: tuple[str, ...],
    accumulate: int,
    result: Result,
) -> list[str]:
    """Return the problems of one run 1 → 2 → 1.

    `accumulate` is the number of micro-batches of each of two processes.
    """
    base = lab.place()
    one, two, back, again = base / "one", base / "two", base / "back", base / "again"
    # dropout draws by rank and shape, so that it alone may differ between world sizes
    common += ("model.head_dropout=0",) if recipe == "classify" else ()
    single, double = (
        (f"train.accumulate={2 * accumulate}",),
        (*on_two, f"train.accumulate={accumulate}"),
    )
    problems = _run(lab, recipe, one, 1, *common, *single)
    if not problems:
        _copy_run(one, two, LEG)
        problems += _run(lab, recipe, two, 2, *common, *double)
    if not problems:
        _copy_run(two, back, 2 * LEG)
        problems += _run(lab, recipe, back, 1, *common, *single)
    if not problems and "train.checkpoint=sharded" in on_two:
        parts = sorted(path.name for path in (two / "checkpoints" / "last").iterdir())
        if len([name for name in parts if "-of-00002" in name]) != 4:
            problems.append(f"the checkpoint is not sharded: {parts}")
        _copy_run(two, again, 2 * LEG)
        problems += _run(lab, recipe, again, 2, *common, *double)
        if _losses(again) != _losses(two):
            problems.append("the two processes, resumed, differ from the uninterrupted run")
    if problems:
        return problems
    tolerance = 1e-2 if "train.precision=bf16" in common else TOLERANCE
    batch = next(
        int(text.partition("=")[2]) for text in common if text.startswith("train.batch_size=")
    )
    for first, (left, right) in ((LEG, (one, two)), (2 * LEG, (two, back))):
        steps = range(first, first + LEG)
        if (
            _read_samples(left, steps) != _read_samples(right, steps)
            or len(_read_samples(left, steps)) != LEG * batch * 2
        ):
            problems.append(f"steps {steps}: {left.name} and {right.name} used other samples")
        gap = max(abs(_losses(left)[step] - _losses(right)[step]) for step in steps)
        name = "largest difference of a loss" + (" in bf16" if tolerance > TOLERANCE else "")
        result.figures[name] = max(gap, result.figures.get(name, 0.0))
        if not gap <= tolerance:
            problems.append(
                f"steps {steps}: losses of {left.name} and {right.name} differ by {gap:.1e}"
            )
    return problems


def _run(lab: Lab, recipe: str, run: Path, world: int, *overrides: str) -> list[str]:
    arguments = lab.arguments(recipe, run, *overrides)
    forks = (
        torchrun(arguments, world, run, hook=lambda: _record_samples(run))
        if world > 1
        else [Fork(arguments, log=run.with_suffix(".log"), hook=lambda: _record_samples(run))]
    )
    return _ended(run, forks, 0)


def _ended(run: Path, forks: list[Fork], expected: int) -> list[str]:
    """Wait for the processes of a run; return a problem if an exit code is not `expected`."""
    codes = [fork.wait() for fork in forks]
    return (
        []
        if codes == [expected] * len(forks)
        else [f"{run.name} ended with {codes}: {forks[0].output[-300:]}"]
    )


def _copy_run(source: Path, target: Path, step: int) -> None:
    """Copy a run as it was after `step` steps."""
    shutil.copytree(
        source, target, symlinks=True, ignore=shutil.ignore_patterns("samples_*", "*.log")
    )
    truncate_run(target, step)


def _losses(run: Path) -> dict[int, float]:
    return {
        row["step"]: row["loss"]
        for row in read_metrics(run / "metrics.jsonl")
        if row["split"] == "train"
    }


def _read_samples(run: Path, steps: range) -> dict[tuple[int, int], list[Any]]:
    """Return (step, position in the global batch) → manifest row and hashes of the inputs."""
    found = {}
    for path in run.glob("samples_*.jsonl"):
        for line in path.read_text().splitlines():
            step, position, *what = json.loads(line)
            if step in steps:
                found[step, position] = what
    return found


def _wrap_task(wrap: Callable[[Task], Task]) -> None:
    make = train_components.make_task

    def wrapped(*arguments: Any) -> Task:
        return wrap(make(*arguments))

    train_components.make_task = wrapped  # in the fork only


def _record_samples(run: Path) -> None:
    """Record the model's inputs for each sample: mixed clip, mask and drop-path draws."""

    def wrap(task: Task) -> Task:
        def recording(model: nn.Module, batch: ClipBatch, context: StepContext) -> TaskOutput:
            given: dict[str, Any] = {}
            inner = getattr(model, "module", model)
            handle = inner.register_forward_pre_hook(
                lambda module, arguments, named: given.update(clips=arguments[0], **named),
                with_kwargs=True,
            )
            output = task(model, batch, context)
            handle.remove()
            with (run / f"samples_{os.environ.get('RANK', '0')}.jsonl").open("a") as file:
                for place, position in enumerate(batch.position.tolist()):
                    hashes = {
                        name: _hash(value[place])
                        for name, value in sorted(given.items())
                        if isinstance(value, Tensor)
                    }
                    row = [context.step, position, batch.row[place].item(), hashes]
                    file.write(json.dumps(row) + "\n")
            return output

        return recording

    _wrap_task(wrap)


def _hash(value: Tensor) -> str:
    return hashlib.sha256(value.detach().contiguous().numpy().tobytes()).hexdigest()


def not_finite(lab: Lab, count: int) -> Result:
    """Put NaN or infinity into the loss, a gradient or the input of one rank."""
    result = Result("N1")
    kinds = [
        (where, value, world, rank, parallel)
        for world, rank, parallel in ((2, 1, "fsdp"), (2, 1, "ddp"), (2, 0, "ddp"), (1, 0, "ddp"))
        for where in ("loss", "gradient", "input")
        for value in (math.nan, math.inf)
        if (where, parallel) != ("gradient", "fsdp")  # hooks of sharded parameters see no gradient
    ]
    for number, (where, value, world, rank, parallel) in enumerate(
        kinds[:: max(len(kinds) // count, 1)][:count]
    ):
        set_reading(number)
        recipe = RECIPES[number % 2]
        run = lab.place() / "run"
        hook = _poison(run, where, value, rank)
        optim = "optim.name=sgd" if number % 3 == 2 else "optim.name=adamw"
        arguments = lab.arguments(recipe, run, f"train.parallel={parallel}", optim)
        forks = torchrun(arguments, world, run, hook=hook)
        problems = _ended(run, forks, 4)
        if not problems:
            report = json.loads((run / "non_finite.json").read_text())
            if (
                report["step"] != BAD_STEP
                or [len(rows) for rows in report["rows_by_rank"]] != [1] * world
            ):
                problems.append(f"reported {report}")
            for place in range(world):
                before, after = json.loads((run / f"weights_{place}.json").read_text())
                if before != after:
                    problems.append(f"rank {place}: weights changed")
            found = CheckpointStore(run / "checkpoints", keep=2).latest()
            if found is None or found.meta["step"] != BAD_STEP:
                problems.append("the previous checkpoint does not load")
        what = f"{where} {value} on rank {rank} of {world} ({recipe}, {parallel}, {optim})"
        result.add(what, problems)
    return result


def _poison(run: Path, where: str, value: float, rank: int) -> Hook:
    """Return a hook that puts `value` into a step on `rank`, and records the weights' hashes."""

    def hook() -> Callable[[], None]:
        own_rank = int(os.environ["RANK"])
        kept: dict[str, Any] = {}

        def wrap(task: Task) -> Task:
            def poisoned(model: nn.Module, batch: ClipBatch, context: StepContext) -> TaskOutput:
                if context.step != BAD_STEP:
                    return task(model, batch, context)
                kept["model"], kept["before"] = model, _weights_hash(model)
                if own_rank != rank:
                    return task(model, batch, context)
                if where == "input":
                    clips = batch.clips.clone()
                    clips[0, 0, 0, 0, 0] = value
                    return task(model, replace(batch, clips=clips), context)
                if where == "gradient":
                    next(model.parameters()).register_hook(lambda gradient: gradient * value)
                    return task(model, batch, context)
                output = task(model, batch, context)
                return replace(output, loss=output.loss * value)

            return poisoned

        def after() -> None:
            hashes = [kept["before"], _weights_hash(kept["model"])]
            (run / f"weights_{own_rank}.json").write_text(json.dumps(hashes))

        _wrap_task(wrap)
        return after

    return hook


def _weights_hash(model: nn.Module) -> str:
    with torch.no_grad():
        shares = [
            value.to_local() if isinstance(value, DTensor) else value
            for value in model.parameters()
        ]
        return hashlib.sha256("".join(map(_hash, shares)).encode()).hexdigest()
