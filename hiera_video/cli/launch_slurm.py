"""Train on a SLURM cluster: one process a GPU, and the job comes back by itself after preemption or its time limit.

python tools/launch_slurm.py --nodes 4 --gpus 8 --hours 24 --partition gpu --cfg configs/k400_hiera_b_mae.yaml
python tools/launch_slurm.py --nodes 2 --slurm qos=high --slurm constraint=h100 --cfg configs/k400_hiera_l.yaml
python tools/launch_slurm.py --cluster local --nodes 1 --gpus 0 --tasks 2 --cfg configs/motion_hiera_micro.yaml   # here

SLURM sends SIGUSR1 before the time limit and SIGTERM at preemption; the run writes a checkpoint after its step (or
validation), and submitit queues the same job again. scancel ends it for good.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from hiera_video.cli.arguments import config_parser
from hiera_video.cli.run import run_tool
from hiera_video.config.load import load_config
from hiera_video.errors import ConfigError
from hiera_video.runtime.slurm_job import SlurmTraining

logger = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    """The arguments of `train_net.py` and those of the job."""
    found = config_parser(__doc__ or "")
    found.add_argument(
        "--cluster",
        choices=("slurm", "local"),
        default="slurm",
        help="local: processes on this machine",
    )
    found.add_argument("--nodes", type=int, default=1)
    found.add_argument("--gpus", type=int, default=8, help="GPUs of a node")
    found.add_argument("--tasks", type=int, help="processes of a node; one a GPU by default")
    found.add_argument("--cpus", type=int, default=10, help="cores of a process, for data.workers")
    found.add_argument(
        "--hours", type=float, default=24, help="time limit; the job comes back after it"
    )
    found.add_argument(
        "--signal-seconds", type=int, default=600,
        help="how long before the time limit the run is told to stop; more than a step and a validation take",
    )  # fmt: skip
    found.add_argument("--partition")
    found.add_argument("--account")
    found.add_argument(
        "--slurm", metavar="KEY=VALUE", action="append", default=[],
        help="any other option of sbatch, such as --slurm qos=high --slurm constraint=h100; may come several times",
    )  # fmt: skip
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Check the configuration here, submit, print the job's number and where its log is."""
    arguments = parser().parse_intermixed_args(argv)  # flags may stand between keys
    limit = round(3600 * arguments.hours)
    if not 0 < arguments.signal_seconds < limit:
        raise ConfigError(
            f"--signal-seconds={arguments.signal_seconds}: must be above 0 and below the time limit of {limit} s; lower it "
            "or raise --hours"
        )
    options = dict(text.removeprefix("--").partition("=")[::2] for text in arguments.slurm)
    if not all(options) or not all(options.values()):
        raise ConfigError(
            f"--slurm {' '.join(arguments.slurm)}: must be KEY=VALUE, such as qos=high"
        )
    config = load_config(arguments.cfg, arguments.overrides)
    command = ("--cfg", str(Path(arguments.cfg).resolve()), *arguments.overrides)
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = "USR1"  # before the import, which reads it
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("submitit is not installed; pip install 'hiera-video[slurm]'") from error
    tool = Path(__file__).resolve().with_name("train.py")
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
        "slurm_additional_parameters": options or None,
    }
    if arguments.dry_run:
        logger.info(
            "would submit to %s: %s %s, with %s",
            arguments.cluster,
            tool,
            " ".join(command),
            parameters,
        )
        return 0
    executor = submitit.AutoExecutor(
        folder, cluster=arguments.cluster, slurm_max_num_timeout=10_000
    )
    executor.update_parameters(
        **{key: value for key, value in parameters.items() if value is not None}
    )
    job = executor.submit(SlurmTraining(str(tool), command))
    logger.info("job %s; log: %s", job.job_id, job.paths.stderr)
    if arguments.cluster == "local":
        job.results()  # local jobs end with the process that started them
    return 0


if __name__ == "__main__":
    run_tool(main)
