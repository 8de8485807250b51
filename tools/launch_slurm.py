"""Train on a SLURM cluster: one process a GPU, and the job comes back by itself after preemption or its time limit.

python tools/launch_slurm.py --nodes 4 --gpus 8 --hours 24 --partition gpu --cfg configs/k400_hiera_b_mae.yaml
python tools/launch_slurm.py --cluster local --nodes 1 --gpus 0 --tasks 2 --cfg configs/motion_hiera_micro.yaml   # here

SLURM sends SIGUSR1 before the time limit and SIGTERM at preemption; the run writes a checkpoint after its step (or
validation), and submitit queues the same job again. scancel ends it for good.
"""

from __future__ import annotations

import argparse
import logging
import os
import runpy
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiera_video.config.load import load_config
from hiera_video.errors import ConfigError
from hiera_video.runtime.cli import config_parser, run_tool

logger = logging.getLogger(__name__)
STOPPED_FOR_LATER, PREEMPTED = 128 + signal.SIGUSR1, 128 + signal.SIGTERM


@dataclass(frozen=True)
class Training:
    """What each task of the job runs; submitit stores it as a file."""

    tool: str
    arguments: tuple[str, ...]

    def __call__(self) -> int:
        """Run the tool as torchrun would. Raises `RuntimeError` with its exit code where it fails."""
        import submitit

        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        sys.argv = [self.tool, *self.arguments]
        try:
            runpy.run_path(self.tool, run_name="__main__")
        except SystemExit as ended:
            if ended.code == STOPPED_FOR_LATER or (ended.code == PREEMPTED and _is_job_running()):
                # the checkpoint is written: now submitit's own handler, which ends rank 0 and returns on the others
                signal.raise_signal(signal.SIGUSR1)
                return int(ended.code)
            if ended.code:
                raise RuntimeError(f"{self.tool} ended with exit code {ended.code}; its log says why") from None
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
    state = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
    return state == "RUNNING"


def parser() -> argparse.ArgumentParser:
    """The arguments of `train_net.py` and those of the job."""
    found = config_parser(__doc__ or "")
    found.add_argument(
        "--cluster", choices=("slurm", "local"), default="slurm", help="local: processes on this machine"
    )
    found.add_argument("--nodes", type=int, default=1)
    found.add_argument("--gpus", type=int, default=8, help="GPUs of a node")
    found.add_argument("--tasks", type=int, help="processes of a node; one a GPU by default")
    found.add_argument("--cpus", type=int, default=10, help="cores of a process, for data.workers")
    found.add_argument("--hours", type=float, default=24, help="time limit; the job comes back after it")
    found.add_argument(
        "--signal-seconds", type=int, default=600,
        help="how long before the time limit the run is told to stop; more than a step and a validation take",
    )  # fmt: skip
    found.add_argument("--partition")
    found.add_argument("--account")
    return found


def main() -> int:
    """Check the configuration here, submit, print the job's number and where its log is."""
    arguments = parser().parse_args()
    limit = round(3600 * arguments.hours)
    if not 0 < arguments.signal_seconds < limit:
        raise ConfigError(
            f"--signal-seconds={arguments.signal_seconds}: must be above 0 and below the time limit of {limit} s; lower it "
            "or raise --hours"
        )
    config = load_config(arguments.cfg, arguments.overrides)
    command = ("--cfg", str(Path(arguments.cfg).resolve()), *arguments.overrides)
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = "USR1"  # before the import, which reads it
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("submitit is not installed; pip install 'hiera-video[slurm]'") from error
    tool = Path(__file__).resolve().with_name("train_net.py")
    folder = Path(config.out_dir).resolve() / "slurm"
    parameters = {
        "name": Path(arguments.cfg).stem,
        "nodes": arguments.nodes,
        "tasks_per_node": arguments.tasks or max(arguments.gpus, 1),
        "gpus_per_node": arguments.gpus,
        "cpus_per_task": arguments.cpus,
        "timeout_min": round(60 * arguments.hours),
        "slurm_signal_delay_s": arguments.signal_seconds,
        "slurm_partition": arguments.partition,
        "slurm_account": arguments.account,
    }
    if arguments.dry_run:
        logger.info("would submit to %s: %s %s, with %s", arguments.cluster, tool, " ".join(command), parameters)
        return 0
    executor = submitit.AutoExecutor(folder, cluster=arguments.cluster, slurm_max_num_timeout=10_000)
    executor.update_parameters(**{key: value for key, value in parameters.items() if value is not None})
    job = executor.submit(Training(str(tool), command))
    logger.info("job %s; log: %s", job.job_id, job.paths.stderr)
    if arguments.cluster == "local":
        job.results()  # local jobs end with the process that started them
    return 0


if __name__ == "__main__":
    run_tool(main)
