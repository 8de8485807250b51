"""Tiny training runs that faults are injected into, and their comparison."""

from __future__ import annotations

import json
import random
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine_faults.forks import Fork, Hook
from hiera_video.runtime.log import read_metrics
from hiera_video.train import trainer
from hiera_video.video.encode import write_video

RECIPES = ("classify", "pretrain")
STEPS = 6


@dataclass
class Result:
    """Outcome of one fault, described in `reliability.FAULTS`."""

    id: str
    trials: int = 0
    held: int = 0
    figures: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, what: str, problems: list[str]) -> None:
        """Count a trial, which held if there are no problems."""
        self.trials += 1
        self.held += not problems
        if problems:
            self.failures.append(f"{what}: {'; '.join(problems)}")
            print(f"    {self.id} {self.failures[-1]}", flush=True)

    def count(self, name: str, number: float = 1) -> None:
        """Add to a figure."""
        self.figures[name] = self.figures.get(name, 0) + number


class Lab:
    """A folder with videos, reference runs and a folder for each trial."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.videos = folder / "videos"
        self.videos.mkdir(parents=True)
        self._references: dict[str, Path] = {}
        self._seconds: dict[str, float] = {}
        self._trials = 0
        generator = np.random.default_rng(0)
        for split, count in (("train", 12), ("val", 4)):
            lines = []
            for number in range(count):
                frames = generator.integers(0, 255, (18, 40, 48, 3), dtype=np.uint8)
                write_video(self.videos / f"{split}_{number}.mp4", frames, fps=12)
                lines.append(f"{split}_{number}.mp4 {number % 2}\n")
            (self.videos / f"{split}.csv").write_text("".join(lines))

    def place(self) -> Path:
        """Return an empty folder for a trial."""
        self._trials += 1
        folder = self.folder / f"trial_{self._trials}"
        folder.mkdir()
        return folder

    def arguments(self, recipe: str, run: Path, *overrides: str) -> list[str]:
        """Return the arguments of six steps with a checkpoint after each and all random parts."""
        config = {"classify": "motion_hiera_micro", "pretrain": "motion_hiera_micro_mae"}[recipe]
        mixing = (
            "augment.mixup=0.8",
            "augment.cutmix=1.0",
            "augment.rand_augment=7",
            "augment.erase=0.25",
        )
        return [
            *("--cfg", f"configs/{config}.yaml"),
            *(
                f"data.train={self.videos / 'train.csv'}",
                f"data.val={self.videos / 'val.csv'}",
                f"out_dir={run}",
            ),
            *(
                "data.workers=0",
                "clip.repeats=2",
                "train.epochs=2",
                "train.batch_size=4",
                "train.log_every=1",
            ),
            *(
                "train.save_minutes=1e-9",
                "train.ema=0.9",
                "model.drop_path_rate=0.2",
                "test.batch_size=4",
            ),
            *((*mixing, "model.head_dropout=0.3") if recipe == "classify" else ()),
            *overrides,
        ]

    def start(self, recipe: str, run: Path, *overrides: str, hook: Hook | None = None) -> Fork:
        """Start or resume the run in `run`."""
        return Fork(self.arguments(recipe, run, *overrides), log=run.with_suffix(".log"), hook=hook)

    def reference(self, recipe: str) -> Path:
        """Return the uninterrupted run of a recipe, with all its checkpoints."""
        if recipe not in self._references:
            run = self.folder / f"reference_{recipe}"
            started = time.monotonic()
            fork = self.start(recipe, run, "train.keep=100")
            assert fork.wait() == 0, fork.output
            self._seconds[recipe] = time.monotonic() - started
            assert len(losses(run)) == STEPS
            self._references[recipe] = run
        return self._references[recipe]

    def seconds(self, recipe: str) -> float:
        """Return the duration of the uninterrupted run."""
        self.reference(recipe)
        return self._seconds[recipe]

    def until(self, recipe: str, step: int) -> Path:
        """Return a copy of the uninterrupted run as it was after `step` steps."""
        run = self.place() / "run"
        shutil.copytree(self.reference(recipe), run, symlinks=True)
        truncate_run(run, step)
        return run

    def resume(self, recipe: str, run: Path, *overrides: str) -> list[str]:
        """Run the command again; return the differences from the uninterrupted run."""
        fork = self.start(recipe, run, *overrides)
        code = fork.wait()
        if code != 0:
            return [f"the resumed run ended with {code}: {fork.output[-500:]}"]
        return differences(run, self.reference(recipe))


def set_reading(number: int) -> None:
    """Let half of the trials read a step's statistics one step later, as on a GPU."""
    late = (number + number // 2) % 2  # both kinds with each recipe
    trainer.QUEUED_DEVICES = ("cpu",) if late else ("cuda",)  # inherited by forks


def truncate_run(run: Path, step: int) -> None:
    """Delete the checkpoints after `step`."""
    for path in (run / "checkpoints").glob("step_*"):
        if int(path.name.removeprefix("step_")) > step:
            shutil.rmtree(path)
    for name in ("last", "best"):
        (run / "checkpoints" / name).unlink(missing_ok=True)
        (run / "checkpoints" / name).symlink_to(f"step_{step:08d}")


def losses(run: Path) -> list[str]:
    """Return every training loss as `float.hex`."""
    return [
        row["loss_hex"] for row in read_metrics(run / "metrics.jsonl") if row["split"] == "train"
    ]


def logged(run: Path) -> int:
    """Return the number of logged steps."""
    return len(losses(run))


def differences(run: Path, reference: Path) -> list[str]:
    """Return the differences of `run` from `reference` in losses, weights and leftover files."""
    problems = []
    if losses(run) != losses(reference):
        problems.append(f"losses {losses(run)} are not {losses(reference)}")
    if final_hash(run) != final_hash(reference):
        problems.append("final weights differ")
    leftovers = [path.name for path in (run / "checkpoints").glob(".*")]
    if leftovers:
        problems.append(f"leftovers: {leftovers}")
    return problems


def final_hash(run: Path) -> str:
    """Return the sha256 of the last checkpoint's weights."""
    meta = json.loads((run / "checkpoints" / "last" / "meta.json").read_text())
    assert meta["step"] == STEPS, meta["step"]
    return str(meta["files"]["model.safetensors"]["sha256"])


def moments(count: int, seed: int) -> list[float]:
    """Return `count` random numbers in [0, 1), one in each of `count` equal intervals."""
    generator = random.Random(f"moments/{seed}")
    return [(part + generator.random()) / count for part in range(count)]
