"""The launcher through submitit's local executor: a job that is told to leave saves, is queued again, and goes on."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hiera_video.runtime.log import read_metrics

ROOT = Path(__file__).parents[2]
CONFIG = "configs/motion_hiera_micro.yaml"
LOCAL = ("--cluster", "local", "--gpus", "0")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_preempted_job_comes_back_and_goes_on(
    number: signal.Signals, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    run = tmp_path / "run"
    command = [
        sys.executable,
        "tools/launch_slurm.py",
        *LOCAL,
        "--cfg",
        CONFIG,
        *overrides,
        "train.epochs=4",
    ]
    launcher = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert launcher.stderr
    (job, log) = re.findall(r"job (\d+); log: (\S+)", launcher.stderr.readline())[0]
    deadline = time.monotonic() + 120
    while len(read_metrics(run / "metrics.jsonl")) < 2:
        assert launcher.poll() is None and time.monotonic() < deadline, Path(log).read_text()
        time.sleep(0.01)
    (task,) = Path(f"/proc/{job}/task/{job}/children").read_text().split()
    subprocess.run(["kill", f"-{number.value}", task], check=True)
    assert launcher.wait(timeout=180) == 0, launcher.stderr.read()
    said = Path(log).read_text()
    stopped = re.findall(r"stopped by a signal after step (\d+)", said)
    assert len(stopped) == 1 and f"continuing {run} after step {stopped[0]}" in said
    steps = [row["step"] for row in read_metrics(run / "metrics.jsonl") if row["split"] == "train"]
    assert steps == list(range(12))


def test_a_mistake_is_told_before_anything_is_submitted(tool: Any, tmp_path: Path) -> None:
    done = tool(
        "launch_slurm.py", *LOCAL, "--cfg", CONFIG, "optim.lr=-1", f"out_dir={tmp_path / 'run'}"
    )
    assert done.returncode == 2 and "optim.lr=-1" in done.stderr and not (tmp_path / "run").exists()
    done = tool("launch_slurm.py", "--dry-run", "--nodes", "2", "--cfg", CONFIG)
    assert done.returncode == 0 and "'nodes': 2, 'tasks_per_node': 8" in done.stderr
    assert "'slurm_signal_delay_s': 600" in done.stderr
    done = tool("launch_slurm.py", "--dry-run", "--signal-seconds", "1800", "--cfg", CONFIG)
    assert done.returncode == 0 and "'slurm_signal_delay_s': 1800" in done.stderr
    done = tool(
        "launch_slurm.py",
        "--dry-run",
        "--slurm",
        "qos=high",
        "--slurm",
        "exclude=n[1-2]",
        "--cfg",
        CONFIG,
    )
    assert done.returncode == 0
    assert "'slurm_additional_parameters': {'qos': 'high', 'exclude': 'n[1-2]'}" in done.stderr
    done = tool("launch_slurm.py", "--dry-run", "--slurm", "requeue", "--cfg", CONFIG)
    assert (
        done.returncode == 2
        and "--slurm requeue: must be KEY=VALUE, such as qos=high" in done.stderr
    )
    done = tool("launch_slurm.py", "--dry-run", "--hours", "0.1", "--cfg", CONFIG)
    words = "--signal-seconds=600: must be above 0 and below the time limit of 360 s; lower it or raise --hours"
    assert done.returncode == 2 and words in done.stderr
