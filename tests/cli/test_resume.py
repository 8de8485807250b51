"""A run that is killed ends as the undisturbed one: every loss and every weight, bit for bit.

Here in processes that are started as a user starts them; signals and more, in forked ones: tests/faults.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
CONFIG = "configs/motion_hiera_micro.yaml"


def losses(run: Path) -> list[str]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss_hex"] for row in rows if row["split"] == "train"]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "last" / "model.safetensors")


def start(*overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "tools/train_net.py", "--cfg", CONFIG, *overrides]
    return subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def signal_after(
    process: subprocess.Popen[str], run: Path, count: int, number: signal.Signals
) -> None:
    """Send `number` to the whole process group once `count` steps are logged."""
    import os

    while process.poll() is None:
        path = run / "metrics.jsonl"
        if path.exists() and path.read_text().count('"train"') >= count:
            os.killpg(process.pid, number)
            return
        time.sleep(0.01)
    raise AssertionError(
        f"ended before step {count}: {process.stderr.read() if process.stderr else ''}"
    )


@pytest.fixture(scope="module")
def undisturbed(
    videos: Path, tmp_path_factory: pytest.TempPathFactory, tool: Any
) -> tuple[Path, list[str]]:
    """A finished run of 6 steps, saved after each step, and its overrides without `out_dir`."""
    run = tmp_path_factory.mktemp("undisturbed")
    overrides = [
        *(f"data.train={videos / 'train.csv'}", f"data.val={videos / 'val.csv'}"),
        *("train.epochs=2", "train.batch_size=4", "train.log_every=1", "train.save_minutes=1e-9"),
        *(
            "augment.mixup=0.8",
            "augment.cutmix=1.0",
            "augment.rand_augment=7",
            "augment.erase=0.25",
        ),
        *("model.drop_path_rate=0.2", "model.head_dropout=0.3"),
    ]
    done = tool("train_net.py", "--cfg", CONFIG, *overrides, "data.workers=0", f"out_dir={run}")
    assert done.returncode == 0, done.stderr
    assert len(losses(run)) == 6
    return run, overrides


def test_kill_9_and_the_same_command_again(
    undisturbed: tuple[Path, list[str]], tmp_path: Path, tool: Any
) -> None:
    reference, overrides = undisturbed
    process = start(*overrides, "data.workers=0", f"out_dir={tmp_path}")
    signal_after(process, tmp_path, 2, signal.SIGKILL)
    process.communicate()
    again = tool(
        "train_net.py", "--cfg", CONFIG, *overrides, "data.workers=0", f"out_dir={tmp_path}"
    )
    assert again.returncode == 0, again.stderr
    assert losses(tmp_path) == losses(reference)
    for name, value in weights(reference).items():
        assert torch.equal(value, weights(tmp_path)[name]), name


def test_what_changes_nothing_that_is_learnt_may_change(
    undisturbed: tuple[Path, list[str]], videos: Path, tmp_path: Path, tool: Any
) -> None:
    run, overrides = undisturbed
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    moved = (
        f"data.root={videos}",
        "model.checkpointing=true",
        "train.keep_every=1",
        f"out_dir={tmp_path / 'run'}",
    )
    done = tool("train_net.py", "--cfg", CONFIG, *overrides, "data.workers=0", *moved)
    assert done.returncode == 0 and f"continuing {tmp_path / 'run'} after step 6" in done.stderr, (
        done.stderr
    )


def test_another_recipe_in_the_same_folder_is_refused(
    undisturbed: tuple[Path, list[str]], tool: Any
) -> None:
    run, overrides = undisturbed
    done = tool("train_net.py", "--cfg", CONFIG, *overrides, f"out_dir={run}", "optim.lr=2e-3")
    assert done.returncode == 2
    assert (
        "holds a run with optim.lr 0.001 → 0.002; set them as they were to continue it, or choose another"
        in done.stderr
    )
