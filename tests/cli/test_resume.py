"""A run that was interrupted ends like an uninterrupted one: every loss and weight, bit for bit.

Signals, kills inside a save and other faults: tests/faults.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hiera_video.runtime.log import read_metrics

ROOT = Path(__file__).parents[2]
CONFIG = "configs/motion_hiera_micro.yaml"
RANDOM_PARTS = (
    "augment.mixup=0.8",
    "augment.cutmix=1.0",
    "augment.rand_augment=7",
    "augment.erase=0.25",
    "model.drop_path_rate=0.2",
    "model.head_dropout=0.3",
)


def losses(run: Path) -> list[str]:
    rows = read_metrics(run / "metrics.jsonl")
    return [row["loss_hex"] for row in rows if row["split"] == "train"]


def assert_equal_runs(run: Path, reference: Path) -> None:
    assert losses(run) == losses(reference)
    last = Path("checkpoints") / "last" / "model.safetensors"
    weights, expected = load_file(run / last), load_file(reference / last)
    for name, value in expected.items():
        assert torch.equal(value, weights[name]), name


@pytest.fixture(scope="module")
def command(videos: Path) -> list[str]:
    """Return a command of six steps with a checkpoint after each, without `out_dir`."""
    return [
        "train_net.py",
        "--cfg",
        CONFIG,
        f"data.train={videos / 'train.csv'}",
        f"data.val={videos / 'val.csv'}",
        "data.workers=0",
        "train.epochs=2",
        "train.batch_size=4",
        "train.log_every=1",
        "train.save_minutes=1e-9",
        "train.keep=100",
        *RANDOM_PARTS,
    ]


@pytest.fixture(scope="module")
def complete(command: list[str], tmp_path_factory: pytest.TempPathFactory, tool: Any) -> Path:
    run = tmp_path_factory.mktemp("complete")
    done = tool(*command, f"out_dir={run}")
    assert done.returncode == 0, done.stderr
    assert len(losses(run)) == 6
    return run


@pytest.fixture
def copied(complete: Path, tmp_path: Path) -> Path:
    shutil.copytree(complete, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


@pytest.mark.parametrize("step", [2, 3])
def test_resuming_from_any_checkpoint(
    step: int, complete: Path, copied: Path, command: list[str], tool: Any
) -> None:
    for path in copied.glob("checkpoints/step_*"):
        if int(path.name.removeprefix("step_")) > step:
            shutil.rmtree(path)
    done = tool(*command, f"out_dir={copied}")
    assert done.returncode == 0 and f"resuming {copied} after step {step}" in done.stderr
    assert_equal_runs(copied, complete)


def test_settings_that_do_not_affect_learning_may_change(
    copied: Path, videos: Path, command: list[str], tool: Any
) -> None:
    changes = (f"data.root={videos}", "model.checkpointing=true", "train.keep_every=1")
    done = tool(*command, f"out_dir={copied}", *changes)
    assert done.returncode == 0 and f"resuming {copied} after step 6" in done.stderr


def test_another_recipe_in_the_same_folder_is_refused(
    complete: Path, command: list[str], tool: Any
) -> None:
    done = tool(*command, f"out_dir={complete}", "optim.lr=2e-3")
    assert done.returncode == 2
    words = "holds a run with other settings: optim.lr 0.001 → 0.002; restore them to resume it"
    assert words in done.stderr


def moved_lists(videos: Path, folder: Path, edit: Callable[[str], str]) -> tuple[str, ...]:
    """Overrides for copies of the lists in `folder`, whose class names `edit` has changed."""
    folder.mkdir()
    for name in ("train.csv", "val.csv"):
        shutil.copy(videos / name, folder)
    (folder / "labels.txt").write_text(edit((videos / "labels.txt").read_text()))
    lists = (f"data.{split}={folder / split}.csv" for split in ("train", "val"))
    return *lists, f"data.root={videos}"


def test_renamed_classes_are_refused_unless_a_key_accepts_them(
    copied: Path, videos: Path, command: list[str], tool: Any, tmp_path: Path
) -> None:
    """Issue I, 3.1."""
    shutil.rmtree((copied / "checkpoints" / "last").resolve())
    lists = moved_lists(videos, tmp_path / "new", lambda text: text.replace("right", "east"))
    done = tool(*command, f"out_dir={copied}", *lists)
    assert done.returncode == 2
    assert done.stderr.endswith(
        f"error: out_dir={copied}: holds a run on other lists: data.train (class 0 'to the right' "
        "→ 'to the east'); data.val (class 0 'to the right' → 'to the east'); restore them to "
        "resume it, choose another out_dir, or set train.allow_changed_lists=true to resume on the "
        "changed lists\n"
    )
    accept = "train.allow_changed_lists=true"
    done = tool(*command, f"out_dir={copied}", *lists, accept)
    assert done.returncode == 0 and "resuming on changed lists: data.train (class 0" in done.stderr
    done = tool(*command, f"out_dir={copied}", *lists)  # now these are the run's lists
    assert done.returncode == 0 and "finished after 2 epochs" in done.stderr


def test_moved_lists_resume(
    complete: Path, copied: Path, videos: Path, command: list[str], tool: Any, tmp_path: Path
) -> None:
    shutil.rmtree((copied / "checkpoints" / "last").resolve())
    lists = moved_lists(videos, tmp_path / "moved", str)
    done = tool(*command, f"out_dir={copied}", *lists)
    assert done.returncode == 0, done.stderr
    assert_equal_runs(copied, complete)


def test_a_finished_run_continues_with_more_epochs(
    copied: Path, command: list[str], tool: Any
) -> None:
    """Issue I, 3.1."""
    done = tool(*command, f"out_dir={copied}")
    words = "finished after 2 epochs: nothing to do; train.epochs=4 continues"
    assert done.returncode == 0 and f"{copied}: {words}" in done.stderr
    done = tool(*command, f"out_dir={copied}", "train.epochs=3", "train.eval_every=2")
    assert done.returncode == 0, done.stderr
    assert len(losses(copied)) == 9


@pytest.mark.fault
def test_kill_9_and_the_same_command_again(command: list[str], tmp_path: Path, launch: Any) -> None:
    killed, reference = tmp_path / "killed", tmp_path / "reference"
    command = [*command, "train.epochs=10"]  # 30 steps, so that the kill comes in time
    assert launch(*command, f"out_dir={reference}").returncode == 0
    script, *arguments = command
    process = subprocess.Popen(
        [sys.executable, ROOT / "tools" / script, *arguments, f"out_dir={killed}"],
        cwd=ROOT,
        start_new_session=True,
    )
    while len(losses(killed)) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    again = launch(*command, f"out_dir={killed}")
    assert again.returncode == 0, again.stderr
    assert_equal_runs(killed, reference)


@pytest.mark.slow
def test_a_run_with_adapters_resumes_bit_for_bit_and_is_tested_as_a_plain_model(
    command: list[str], tool: Any, tmp_path: Path
) -> None:
    keys = ("optim.lora_rank=4", "train.freeze=[blocks:1]", "train.ema=0.5", "train.keep=9")
    reference, run = tmp_path / "reference", tmp_path / "run"
    for folder in (reference, run):
        if folder == run:
            shutil.copytree(reference, run, symlinks=True)
            for step in range(4, 7):
                shutil.rmtree(run / f"checkpoints/step_{step:08d}", ignore_errors=True)
        done = tool(*command, *keys, f"out_dir={folder}")
        assert done.returncode == 0, done.stderr
    assert "resuming" in done.stderr and "after step 3" in done.stderr
    assert "1.20 M parameters (0.01 M trained)" in done.stderr
    assert_equal_runs(run, reference)
    weights = load_file(run / "checkpoints/last/model.safetensors")
    assert not [name for name in weights if "lora" in name]
    validated = read_metrics(run / "metrics.jsonl")[-1]
    views = ("test.clips=1", "test.crops=1", "data.workers=0", "--checkpoint", "last")
    assert tool("test_net.py", "--run", str(run), *views).returncode == 0
    results = json.loads((run / "results.json").read_text())
    assert results["top1"] == pytest.approx(validated["top1"])
    done = tool(*command, *keys, f"out_dir={run}", "train.freeze=[]")
    assert done.returncode == 2
    assert "holds a run with other settings: train.freeze ('blocks:1',) → ()" in done.stderr


@pytest.mark.slow
def test_a_run_that_stopped_early_is_finished(
    command: list[str], tool: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    keys = (*command, f"out_dir={run}", "train.epochs=6", "optim.lr=1e-9", "optim.min_lr=0")
    done = tool(*keys, "train.early_stop=1")
    assert done.returncode == 0 and "stopped early after step 6: the last 1 val" in done.stderr
    done = tool(*keys, "train.early_stop=1")
    words = f"{run}: stopped early after 2 epochs: nothing to do; train.early_stop=2 continues"
    assert done.returncode == 0 and words in done.stderr


def test_early_stopping_needs_a_validation_list(command: list[str], tool: Any) -> None:
    done = tool(*command, "train.early_stop=3", "data.val=null")
    assert done.returncode == 2
    assert "train.early_stop=3: needs data.val to validate on; set it, or train" in done.stderr
