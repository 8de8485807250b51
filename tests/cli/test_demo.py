"""The demo's commands and its last lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hiera_video.cli import demo


def test_commands(tmp_path: Path) -> None:
    found = demo.commands(Path("x"), quick=False, seed=3)
    lines = [" ".join(command) for command in found]
    lists = "data.train=x/data/motion_hard/train.csv data.val=x/data/motion_hard/val.csv"
    mae = "model.pretrained=x/runs/motion_hard_hiera_micro_mae"
    tune, short = "train --cfg motion_hard_hiera_micro", "train.epochs=2 optim.warmup_epochs=0.4"
    assert lines == [
        "prepare motion output=x/data/motion_hard --hard",
        f"train --cfg motion_hard_hiera_micro_mae {lists} "
        "out_dir=x/runs/motion_hard_hiera_micro_mae seed=3",
        f"{tune} {lists} out_dir=x/runs/motion_hard_scratch seed=3 {short}",
        "test --run x/runs/motion_hard_scratch",
        f"{tune} {mae} {lists} out_dir=x/runs/motion_hard_pretrained seed=3 {short}",
        "test --run x/runs/motion_hard_pretrained",
        "test --compare x/runs/motion_hard_scratch/results.json "
        "x/runs/motion_hard_pretrained/results.json --page x/runs/motion_comparison.html",
        f"{tune} model.pretrained=x/runs/motion_hard_pretrained {lists} "
        "out_dir=x/runs/motion_hard_hiera_micro seed=3 model.input_size=[16,48,48] "
        "train.epochs=3 optim.warmup_epochs=0.4 train.eval_every=3",
        "test --run x/runs/motion_hard_hiera_micro",
    ]


def test_last_lines(tmp_path: Path) -> None:
    for name, top1 in (
        ("motion_hard_hiera_micro", 95.0),
        ("motion_hard_pretrained", 80.0),
        ("motion_hard_scratch", 60.25),
    ):
        (tmp_path / name).mkdir()
        results = {
            "top1": top1,
            "intervals": {"top1": [top1 - 5, top1 + 4]},
            "views": "2×3",
            "evaluated": 320,
        }
        (tmp_path / name / "results.json").write_text(json.dumps(results))
    assert demo.summary(tmp_path, quick=False)[-3:] == [
        "pre-trained, then three epochs at 48×48 pixels: 95.0 % top-1 "
        "(95 % interval 90.0 to 99.0), 2×3 views of 320 videos",
        "pre-trained,  two epochs: 80.0 % top-1 (95 % interval 75.0 to 84.0), "
        "2×3 views of 320 videos",
        "from scratch, two epochs: 60.2 % top-1 (95 % interval 55.2 to 64.2), "
        "2×3 views of 320 videos",
    ]


def test_the_first_failure_ends_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = iter([0, 4])
    monkeypatch.setattr(demo, "run_command", lambda command: next(codes))
    assert demo.main([f"output={tmp_path}"]) == 4


THREADS_AFTER_PREPARE = """
import sys
from hiera_video.cli.main import run_command
assert run_command(["prepare", "motion", f"output={sys.argv[1]}", "--clips-per-class", "1"]) == 0
assert "torch" not in sys.modules
import torch
print("threads", torch.get_num_threads())
"""


def test_the_data_do_not_leave_training_with_one_thread(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}

    def run(code: str) -> str:
        command = [sys.executable, "-c", code, str(tmp_path / "data")]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=300
        )
        return done.stdout.splitlines()[-1]

    assert run(THREADS_AFTER_PREPARE) == run(
        "import torch; print('threads', torch.get_num_threads())"
    )
