"""Requeueing of stopped SLURM jobs, against a fake `squeue`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from hiera_video.runtime.slurm_job import SlurmTraining


@pytest.mark.parametrize(
    ("code", "state", "is_requeued"),
    [(138, "RUNNING", True), (143, "RUNNING", True), (143, "COMPLETING", False)],
)
def test_only_preempted_jobs_are_requeued(
    code: int, state: str, is_requeued: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`scancel` sends SIGTERM too, but the job's state is then COMPLETING."""
    import submitit

    monkeypatch.setattr(submitit.helpers.TorchDistributedEnvironment, "__init__", lambda self: None)
    monkeypatch.setattr(
        submitit.helpers.TorchDistributedEnvironment, "export", lambda self, **_: None
    )
    monkeypatch.setattr(sys, "argv", [""])
    tool, squeue, asked = tmp_path / "tool.py", tmp_path / "squeue", tmp_path / "asked"
    tool.write_text(f"raise SystemExit({code})")
    squeue.write_text(f'#!/bin/sh\necho "$@" > {asked}\necho {state}\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    training = SlurmTraining(str(tool), ())
    received: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: received.append(number))
    try:
        if is_requeued:
            assert training() == code
        else:
            with pytest.raises(
                RuntimeError, match=r"tool.py ended with exit code 143; its log says why"
            ):
                training()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert received == [signal.SIGUSR1] * is_requeued
    if code == 143:
        assert asked.read_text() == "--noheader --format=%T --jobs=17\n"
