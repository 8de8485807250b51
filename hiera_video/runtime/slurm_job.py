"""Task of a SLURM training job, pickled by submitit; a preempted job requeues itself."""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from hiera_video.errors import ConfigError

REQUEUE, PREEMPTED = 128 + signal.SIGUSR1, 128 + signal.SIGTERM
"""Exit codes of a tool that stopped on a signal with its checkpoint written."""


def require_slurm(cluster: str) -> None:
    """Raise `ConfigError` if `cluster` is slurm and this machine cannot submit jobs to one."""
    if cluster == "slurm" and shutil.which("srun") is None:
        raise ConfigError(
            "--cluster slurm: srun is not installed on this machine; run the command on a login "
            "node of the cluster, or here without SLURM by --cluster local"
        )


@dataclass(frozen=True)
class SlurmTraining:
    """A tool and its arguments, run as one process of the job."""

    tool: str
    arguments: tuple[str, ...]

    def __call__(self) -> int:
        """Run the tool as torchrun would.

        Returns:
            The exit code: 0, or that of a stop for which the job is requeued.

        Raises:
            RuntimeError: The tool failed.
        """
        import submitit

        submitit.helpers.TorchDistributedEnvironment().export(
            set_cuda_visible_devices=False, overwrite=True
        )
        sys.argv = [self.tool, *self.arguments]
        try:
            runpy.run_path(self.tool, run_name="__main__")
        except SystemExit as stop:
            if stop.code == REQUEUE or (stop.code == PREEMPTED and _is_job_running()):
                # submitit's handler requeues the job: it exits on rank 0 and returns on the others
                signal.raise_signal(signal.SIGUSR1)
                return int(stop.code)
            if stop.code:
                raise RuntimeError(
                    f"{self.tool} ended with exit code {stop.code}; its log says why"
                ) from None
        return 0

    def checkpoint(self, *arguments: Any, **options: Any) -> Any:
        """Return the job that submitit requeues: the same command, which resumes."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, *arguments, **options)


def _is_job_running() -> bool:
    """Return True while a job is being preempted, False once SLURM is ending it.

    `scontrol requeue` would revive a cancelled job, and fail on one that SLURM has requeued itself.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:  # --cluster local
        return True
    command = ["squeue", "--noheader", "--format=%T", f"--jobs={job}"]
    found = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return found.stdout.strip() == "RUNNING"
