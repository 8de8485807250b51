"""A tiny labelled set of real MP4 files, and the commands: in this process or launched."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiera_video.cli.run import exit_code
from hiera_video.video.encode import write_video

ROOT = Path(__file__).parents[2]
Tool = Callable[..., subprocess.CompletedProcess[str]]
MODULES = {
    "train_net.py": "train",
    "test_net.py": "test",
    "extract_features.py": "extract",
}
"""Scripts in `tools/` whose module in `hiera_video.cli` has another name."""


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train.csv` (12 videos) and `val.csv` (6): a square that moves right (0) or left (1)."""
    folder = tmp_path_factory.mktemp("videos")
    for split, count in (("train", 12), ("val", 6)):
        lines = []
        for number in range(count):
            label, name = number % 2, f"{split}_{number}.mp4"
            frames = np.full((20, 40, 48, 3), 30 + 5 * number, np.uint8)
            for time in range(20):
                left = 2 * time if label == 0 else 38 - 2 * time
                frames[time, 10 + number : 20 + number, left : left + 10] = 250
            write_video(folder / name, frames, fps=12)
            lines.append(f"{name} {label}\n")
        (folder / f"{split}.csv").write_text("".join(lines))
    (folder / "labels.txt").write_text("to the right\nto the left\n")
    return folder


@pytest.fixture
def overrides(videos: Path, tmp_path: Path) -> list[str]:
    """A run of 6 steps on that set, with all augmentations on, in `tmp_path/run`."""
    return [
        f"data.train={videos / 'train.csv'}",
        f"data.val={videos / 'val.csv'}",
        f"out_dir={tmp_path / 'run'}",
        "train.epochs=2",
        "train.batch_size=4",
        "train.log_every=1",
        "data.workers=0",
        "augment.mixup=0.8",
        "augment.cutmix=1.0",
        "augment.rand_augment=7",
        "augment.erase=0.25",
        "model.drop_path_rate=0.2",
        "model.head_dropout=0.3",
        "test.clips=2",
    ]


@pytest.fixture(scope="session")
def tool() -> Tool:
    """`tool("train_net.py", "--cfg", …)`: run a command in this process, in the root folder."""

    def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        main = import_module(f"hiera_video.cli.{MODULES.get(name, name.removesuffix('.py'))}").main
        out, err = io.StringIO(), io.StringIO()
        handler = logging.StreamHandler(err)
        root = logging.getLogger()
        level = root.level
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        try:
            with contextlib.chdir(ROOT), redirect_stdout(out), redirect_stderr(err):
                code = exit_code(lambda: _exited(main, arguments))
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
        return subprocess.CompletedProcess([name, *arguments], code, out.getvalue(), err.getvalue())

    return run


def _exited(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Run `main` and turn argparse's exit into a code."""
    try:
        return main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.fixture(scope="session")
def launch() -> Tool:
    """`launch("train_net.py", "--cfg", …)`: run the script in `tools/` in a process of its own."""

    def run(name: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "tools" / name), *arguments]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=600, **options
        )

    return run


def rows(run: Path, split: str = "train") -> list[dict[str, Any]]:
    """Rows of a run's `metrics.jsonl`."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["split"] == split]
