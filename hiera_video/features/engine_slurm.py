"""The engine of a SLURM cluster: an array of jobs, each of which is one rank of as many, through submitit."""

from __future__ import annotations

import logging
import os
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiera_video.errors import ConfigError

logger = logging.getLogger(__name__)
BROKEN_LIMIT = 3


@dataclass(frozen=True)
class ArrayJob:
    """What one job of the array runs; submitit stores it as a file."""

    tool: str
    arguments: tuple[str, ...]
    rank: int
    world: int

    def __call__(self) -> int:
        """Run the tool as this rank. Raises `RuntimeError` with its exit code where it fails."""
        os.environ |= {"RANK": str(self.rank), "WORLD_SIZE": str(self.world), "LOCAL_RANK": "0"}
        sys.argv = [self.tool, *self.arguments]
        try:
            runpy.run_path(self.tool, run_name="__main__")
        except SystemExit as ended:
            if ended.code not in (None, 0, BROKEN_LIMIT):
                raise RuntimeError(
                    f"{self.tool} ended with exit code {ended.code}; its log says why"
                ) from None
        return 0

    def checkpoint(self, *arguments: Any, **options: Any) -> Any:
        """What submitit queues again after preemption or the time limit: the same, which goes on where it was."""
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
    """Submit `tasks` jobs and say where their logs are; on `cluster="local"`, wait for them."""
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = "USR1"  # before the import, which reads it
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("submitit is not installed; pip install 'hiera-video[slurm]'") from error
    logs = Path(folder).resolve() / "slurm"
    executor = submitit.AutoExecutor(logs, cluster=cluster, slurm_max_num_timeout=10_000)
    known = {key: value for key, value in parameters.items() if value is not None}
    executor.update_parameters(
        name="features", nodes=1, tasks_per_node=1, slurm_array_parallelism=tasks, **known
    )
    with executor.batch():  # one array
        jobs = [executor.submit(ArrayJob(tool, arguments, rank, tasks)) for rank in range(tasks)]
    logger.info("jobs %s … %s; logs: %s", jobs[0].job_id, jobs[-1].job_id, logs)
    if cluster == "local":  # such jobs end with the process that started them
        for job in jobs:
            job.results()
    return 0
