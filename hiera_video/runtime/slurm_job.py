"""What each task of a training's SLURM job runs, as submitit stores it: after a stop for later, the job is queued again."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

STOPPED_FOR_LATER, PREEMPTED = 128 + signal.SIGUSR1, 128 + signal.SIGTERM


@dataclass(frozen=True)
class SlurmTraining:
    """A tool and its arguments, as one of the job's processes."""

    tool: str
    arguments: tuple[str, ...]

    def __call__(self) -> int:
        """Run the tool as torchrun would. Raises `RuntimeError` with its exit code where it fails."""
        import submitit

        submitit.helpers.TorchDistributedEnvironment().export(
            set_cuda_visible_devices=False, overwrite=True
        )
        sys.argv = [self.tool, *self.arguments]
        try:
            runpy.run_path(self.tool, run_name="__main__")
        except SystemExit as ended:
            if ended.code == STOPPED_FOR_LATER or (ended.code == PREEMPTED and _is_job_running()):
                # the checkpoint is written: now submitit's own handler, which ends rank 0 and returns on the others
                signal.raise_signal(signal.SIGUSR1)
                return int(ended.code)
            if ended.code:
                raise RuntimeError(
                    f"{self.tool} ended with exit code {ended.code}; its log says why"
                ) from None
        return 0

    def checkpoint(self, *arguments: Any, **options: Any) -> Any:
        """What submitit queues again: the same command, which goes on from the last checkpoint."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, *arguments, **options)


def _is_job_running() -> bool:
    """True while a job is being preempted, False for one that SLURM is ending already: `scontrol requeue` would bring a
    cancelled one back, and fail on one that SLURM has queued again itself."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:  # --cluster local
        return True
    command = ["squeue", "--noheader", "--format=%T", f"--jobs={job}"]
    state = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()
    return state == "RUNNING"
