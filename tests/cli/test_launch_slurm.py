"""`tools/launch_slurm.py` with submitit's local executor: stop, requeue, resume; option errors."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hiera_video.errors import ConfigError
from hiera_video.runtime.log import read_metrics
from hiera_video.runtime.slurm_job import require_slurm

ROOT = Path(__file__).parents[2]
CONFIG = "configs/motion_hiera_micro.yaml"
LOCAL = ("--cluster", "local", "--nodes", "1", "--gpus", "0", "--tasks", "1", "--cfg", CONFIG)


@pytest.mark.fault
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_preempted_job_is_requeued_and_resumes(
    number: signal.Signals, overrides: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "tools/launch_slurm.py", *LOCAL, *overrides, "train.epochs=4"]
    env = {name: value for name, value in os.environ.items() if name != "SLURM_JOB_ID"}
    launcher = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
    assert launcher.stderr
    (job, log) = re.findall(r"job (\d+); log: (\S+)", launcher.stderr.readline())[0]
    while len(read_metrics(run / "metrics.jsonl")) < 2:
        assert launcher.poll() is None, Path(log).read_text()
        time.sleep(0.01)
    (task,) = Path(f"/proc/{job}/task/{job}/children").read_text().split()
    os.kill(int(task), number)
    assert launcher.wait(timeout=300) == 0, launcher.stderr.read()
    text = Path(log).read_text()
    stopped = re.findall(r"signal .*after step (\d+)", text)
    assert len(stopped) == 1 and f"{run} after step {stopped[0]}" in text
    steps = [row["step"] for row in read_metrics(run / "metrics.jsonl") if row["split"] == "train"]
    assert steps == list(range(12))


def test_a_wrong_configuration_is_refused_before_submission(tool: Any, tmp_path: Path) -> None:
    done = tool("launch_slurm.py", *LOCAL, "optim.lr=-1", f"out_dir={tmp_path / 'run'}")
    assert done.returncode == 2 and "optim.lr=-1" in done.stderr and not (tmp_path / "run").exists()


def test_lists_that_the_job_would_miss_are_named(tool: Any) -> None:
    done = tool("launch_slurm.py", "--dry-run", "--cfg", CONFIG, "data.train=nope.csv")
    words = "warning: on this machine, the job would fail: data.train=nope.csv: no such file"
    assert done.returncode == 0 and words in done.stderr


def test_a_machine_without_slurm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", {}.get)
    require_slurm("local")
    with pytest.raises(ConfigError, match="--cluster slurm: srun is not installed on this machine"):
        require_slurm("slurm")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--nodes", "2"], "'nodes': 2, 'tasks_per_node': 8"),
        ([], "'slurm_signal_delay_s': 600"),
        (["--signal-seconds", "1800"], "'slurm_signal_delay_s': 1800"),
        (
            ["--slurm", "qos=high", "--slurm", "exclude=n[1-2]"],
            "'slurm_additional_parameters': {'qos': 'high', 'exclude': 'n[1-2]'}",
        ),
    ],
)
def test_options_of_the_job(options: list[str], words: str, tool: Any) -> None:
    done = tool("launch_slurm.py", "--dry-run", "--cfg", CONFIG, *options)
    assert done.returncode == 0 and words in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--nodes", "0"], "--nodes 0: must be 1 or more"),
        (["--slurm", "requeue"], "--slurm requeue: must be KEY=VALUE, such as qos=high"),
        (
            ["--hours", "0.1"],
            "--signal-seconds=600: must be above 0 and below the time limit of 360 s; lower it "
            "or raise --hours",
        ),
    ],
)
def test_wrong_options(options: list[str], words: str, tool: Any) -> None:
    done = tool("launch_slurm.py", "--dry-run", "--cfg", CONFIG, *options)
    assert done.returncode == 2 and words in done.stderr
