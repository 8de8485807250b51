"""Two processes (gloo) train like one process with two micro-batches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hiera_video.runtime.log import read_metrics
from hiera_video.video.encode import write_video

ROOT = Path(__file__).parents[2]


def losses(run: Path) -> list[float]:
    rows = read_metrics(run / "metrics.jsonl")
    return [row["loss"] for row in rows if row["split"] == "train"]


@pytest.mark.slow
def test_one_process_equals_two(tmp_path: Path) -> None:
    """Compare one process that finishes clips in its loader with two that do so on the device.

    Of the two, each micro-batch is one video, whose partner is in the other process (issue I,
    section 5).

    Pre-training and changes of the number of processes: R6 in tests/faults.
    """
    generator = np.random.default_rng(0)
    videos = tmp_path / "list.csv"
    for number in range(8):
        frames = generator.integers(0, 255, (18, 40, 48, 3), dtype=np.uint8)
        write_video(tmp_path / f"{number}.mp4", frames, fps=12)
    videos.write_text("".join(f"{number}.mp4 {number % 2}\n" for number in range(8)))
    common = [
        "tools/train_net.py",
        "--cfg",
        "configs/motion_hiera_micro.yaml",
        f"data.train={videos}",
        f"data.val={videos}",
        "data.workers=0",
        "train.epochs=2",
        "train.batch_size=8",
        "train.log_every=1",
        "model.drop_path_rate=0.2",
        "augment.mixup=0.8",
        "augment.erase=0.5",
        "clip.repeats=2",
    ]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    one, two = tmp_path / "one", tmp_path / "two"
    for arguments in (
        [*common, "train.accumulate=2", f"out_dir={one}"],
        [*torchrun, *common, "train.accumulate=4", "augment.device=model", f"out_dir={two}"],
    ):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
    assert len(losses(one)) == 2
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    for run in (one, two):
        validations = [row for row in read_metrics(run / "metrics.jsonl") if row["split"] == "val"]
        assert validations[-1]["evaluated"] == 8


@pytest.mark.slow
def test_a_dry_run_on_two_processes(tmp_path: Path) -> None:
    for number in range(3):  # fewer videos than the batch of two processes
        frames = np.full((18, 40, 48, 3), 50 * number, np.uint8)
        write_video(tmp_path / f"{number}.mp4", frames, fps=12)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "tools/train_net.py", "--dry-run"]
    command += ["--cfg", "configs/motion_hiera_micro.yaml", f"data.train={tmp_path}"]
    command += ["data.val=null", "train.accumulate=4", f"out_dir={tmp_path / 'run'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("clips [1, 3, 16, 32, 32] × 2 micro-batches, loss ") == 2
    assert "full recipe: " in done.stderr and "on 2 × cpu at this speed" in done.stderr
    assert not (tmp_path / "run").exists()
