"""Run an extraction as a SLURM array, one rank per job, with submitit."""

from __future__ import annotations

import logging
import os
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiera_video.errors import ConfigError
from hiera_video.runtime.slurm_job import require_slurm

logger = logging.getLogger(__name__)
TOO_MANY_UNREADABLE = 3
"""Exit code of an extraction that finished over `features.max_broken`."""


@dataclass(frozen=True)
class ArrayJob:
    """One job of the array; submitit pickles it."""

    tool: str
    """Path of the tool to run."""
    arguments: tuple[str, ...]
    """Its command line."""
    rank: int
    world_size: int

    def __call__(self) -> int:
        """Run the tool as this rank.

        Raises:
            RuntimeError: The tool failed; the message has its exit code.
        """
        os.environ |= {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_RANK": "0",
        }
        sys.argv = [self.tool, *self.arguments]
        try:
            runpy.run_path(self.tool, run_name="__main__")
        except SystemExit as ended:
            if ended.code not in (None, 0, TOO_MANY_UNREADABLE):
                raise RuntimeError(
                    f"{self.tool} ended with exit code {ended.code}; see its log"
                ) from None
        return 0

    def checkpoint(self, *arguments: Any, **options: Any) -> Any:
        """Return the job for submitit to queue after preemption or the time limit: it resumes."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, *arguments, **options)


def submit(
    tool: str,
    arguments: tuple[str, ...],
    *,
    folder: str,
    tasks: int,
    cluster: str,
    **parameters: Any,
) -> int:
    """Submit an array of jobs that share the work, and log where their logs are.

    Args:
        tool: Path of the tool that each job runs.
        arguments: Command line of the tool.
        folder: Output folder; logs go to `slurm/` in it.
        tasks: Number of jobs.
        cluster: `slurm`, or `local`: processes on this machine, which are waited for.
        parameters: Submitit's parameters of a job; None leaves one unset.

    Returns:
        The exit code.

    Raises:
        ConfigError: submitit is not installed.
    """
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = "USR1"  # before the import, which reads it
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("submitit is not installed; pip install 'hiera-video[slurm]'") from error
    require_slurm(cluster)
    logs = Path(folder).resolve() / "slurm"
    executor = submitit.AutoExecutor(logs, cluster=cluster, slurm_max_num_timeout=10_000)
    given = {key: value for key, value in parameters.items() if value is not None}
    executor.update_parameters(
        name="features", nodes=1, tasks_per_node=1, slurm_array_parallelism=tasks, **given
    )
    with executor.batch():  # one array
        jobs = [executor.submit(ArrayJob(tool, arguments, rank, tasks)) for rank in range(tasks)]
    logger.info("jobs %s … %s; logs: %s", jobs[0].job_id, jobs[-1].job_id, logs)
    if cluster == "local":  # local jobs end with the process that started them
        for job in jobs:
            job.results()
    return 0
