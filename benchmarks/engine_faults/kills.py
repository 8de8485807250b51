"""R1: kill -9 at any moment. R2: SIGTERM and SIGINT to the process group."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine_faults.runs import RECIPES, Lab, Result, logged, moments, set_reading

FILE_EVENTS = frozenset(
    {"open", "os.rename", "os.mkdir", "os.symlink", "os.remove", "os.rmdir", "shutil.rmtree"}
)


def kill_anywhere(lab: Lab, count: int) -> Result:
    """Kill runs and resume them.

    A third of the kills come at a random time, a third at a random file operation of a save, and a
    third a few milliseconds after a save began.
    """
    result = Result("R1")
    result.figures["inside a save"] = 0
    for number, moment in enumerate(moments(count, seed=1)):
        set_reading(number)
        recipe = RECIPES[number % 2]
        kind = (
            ("time", "operation", "save")[number // 2 % 3]
            if count > 3
            else ("operation", "save", "time")[number]
        )
        run = lab.place() / "run"
        lab.reference(recipe)
        early = moment  # halved if the run ends before the kill
        while (
            not (killed := _killed(lab, recipe, run, kind, early))
            and kind == "time"
            and early > 0.1
        ):
            run, early = lab.place() / "run", early / 2
        if not killed:
            result.add(f"kill {number} ({kind})", ["the run ended before the kill"])
            continue
        result.count("inside a save", bool(list(run.glob("checkpoints/.*.partial"))))
        result.add(f"kill {number} ({recipe}, {kind} {moment:.2f})", lab.resume(recipe, run))
    return result


def _killed(lab: Lab, recipe: str, run: Path, kind: str, moment: float) -> bool:
    """Start a run and kill it; return False if it ended before."""
    if kind == "operation":
        operation = 1 + int(moment * _operations(lab, recipe))
        fork = lab.start(
            recipe, run, hook=lambda: _at_operations(lambda number: number == operation and _die())
        )
        return fork.wait() == -signal.SIGKILL
    fork = lab.start(recipe, run)
    if kind == "time":
        time.sleep(moment * lab.seconds(recipe) * 0.9)
    else:
        wanted = f".step_{1 + int(moment * 6):08d}.partial"
        while fork.poll() is None and not (run / "checkpoints" / wanted).exists():
            time.sleep(0.0002)
        time.sleep(random.Random(moment).random() * 0.01)
    if fork.poll() is None:
        fork.kill(signal.SIGKILL)
    return fork.wait() == -signal.SIGKILL


def _operations(lab: Lab, recipe: str) -> int:
    """Return the number of file operations in `checkpoints` of an uninterrupted run."""
    note = lab.folder / f"operations_{recipe}"
    if not note.exists():
        count = lambda: _at_operations(lambda number: note.write_text(str(number)))  # noqa: E731
        assert lab.start(recipe, lab.place() / "run", hook=count).wait() == 0
    return int(note.read_text())


def _at_operations(act: Callable[[int], object]) -> None:
    """Call `act` at each file operation in `checkpoints`, with its number."""
    number = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal number
        if event in FILE_EVENTS and "/checkpoints/" in str(arguments[0]):
            number += 1
            act(number)

    sys.addaudithook(watch)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop_signals(lab: Lab, count: int) -> Result:
    """Send SIGTERM or SIGINT some time after the first step, with 0 or 2 workers."""
    result = Result("R2")
    for number, moment in enumerate(moments(count, seed=2)):
        set_reading(number)
        recipe, workers = RECIPES[number % 2], (0, 2)[number // 2 % 2]
        signal_ = (
            (signal.SIGTERM, signal.SIGINT)[number // 4 % 2]
            if count > 4
            else (signal.SIGINT, signal.SIGTERM)[number % 2]
        )
        if count <= 4:
            workers = (2, 0)[number % 2]
        lab.reference(recipe)
        overrides = ("train.save_minutes=10", f"data.workers={workers}")
        steps = 1 + int(moment * 4)  # of 6
        for _ in range(5):  # on a busy machine a run may end before the signal
            run = lab.place() / "run"
            fork = lab.start(recipe, run, *overrides)
            wait(lambda: logged(run) >= steps or fork.poll() is not None)  # noqa: B023
            time.sleep(random.Random(moment).random() * 0.02)
            fork.kill(signal.SIGSTOP)  # no step may end between reading the log and the signal
            before = logged(run)
            if fork.poll() is None:
                break
        fork.kill(signal_)
        fork.kill(signal.SIGCONT)
        started = time.monotonic()
        wait(lambda: fork.poll() is not None, seconds=5)  # noqa: B023
        if fork.poll() is None:  # a worker that was just being started may have stopped only now
            fork.kill(signal.SIGCONT)
        code = fork.wait()
        seconds = time.monotonic() - started
        problems = []
        if code != 128 + signal_:
            problems.append(f"exit code {code}, not {128 + signal_}: {fork.output[-300:]}")
        else:
            saved = json.loads((run / "checkpoints" / "last" / "meta.json").read_text())["step"]
            if saved != logged(run) or not before <= saved <= before + 2:
                problems.append(
                    f"saved step {saved}, logged {before} at the signal, {logged(run)} at the end"
                )
            problems += lab.resume(recipe, run, *overrides)
        longest = "longest wait for the checkpoint, seconds"
        result.figures[longest] = max(round(seconds, 2), result.figures.get(longest, 0))
        result.add(f"signal {number} ({recipe}, {signal_.name}, {workers} workers)", problems)
    return result


def wait(ready: Callable[[], bool], seconds: float = 300) -> None:
    """Wait until `ready()`, at most for `seconds`."""
    deadline = time.monotonic() + seconds
    while not ready() and time.monotonic() < deadline:
        time.sleep(0.002)
