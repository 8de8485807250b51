"""Two real gloo processes learn what one process does with two micro-batches."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hiera_video.errors import CheckpointError
from hiera_video.video.encode import write_video
from hiera_video.workflows.train import _check_same_step

ROOT = Path(__file__).parents[2]


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["split"] == "train"]


def test_ranks_that_see_different_checkpoints_are_told() -> None:
    _check_same_step([4, 4], Path("run"))
    words = r"run/checkpoints: the processes see different checkpoints \(steps \[4, 0\]\); out_dir must be on a disk"
    with pytest.raises(CheckpointError, match=words):
        _check_same_step([4, 0], Path("run"))


def test_one_process_equals_two(tmp_path: Path) -> None:
    """Though one finishes its clips in the loader and two do it on the model's device. Masked pre-training, and other
    world sizes after a restart: tests/faults, R6."""
    generator = np.random.default_rng(0)
    lines = []
    for number in range(8):
        write_video(
            tmp_path / f"{number}.mp4",
            generator.integers(0, 255, (18, 40, 48, 3), dtype=np.uint8),
            fps=12,
        )
        lines.append(f"{number}.mp4 {number % 2}\n")
    (tmp_path / "list.csv").write_text("".join(lines))
    common = [
        *(
            "tools/train_net.py",
            "--cfg",
            "configs/motion_hiera_micro.yaml",
            f"data.train={tmp_path / 'list.csv'}",
        ),
        *(
            f"data.val={tmp_path / 'list.csv'}",
            "data.workers=0",
            "train.epochs=2",
            "train.batch_size=8",
        ),
        *(
            "train.log_every=1",
            "model.drop_path_rate=0.2",
            "augment.mixup=0.8",
            "augment.erase=0.5",
            "clip.repeats=2",
        ),
    ]
    one, two = tmp_path / "one", tmp_path / "two"
    single = [sys.executable, *common, "train.accumulate=2", f"out_dir={one}"]
    double = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        *common,
        "augment.device=model",
        f"out_dir={two}",
    ]
    for command in (single, double):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
    assert len(losses(one)) == 2
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    validation = [
        [
            json.loads(line)
            for line in (run / "metrics.jsonl").read_text().splitlines()
            if '"val"' in line
        ]
        for run in (one, two)
    ]
    assert validation[0][-1]["evaluated"] == validation[1][-1]["evaluated"] == 8
