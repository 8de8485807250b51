"""Train on a SLURM cluster: one process per GPU, requeued after preemption or the time limit.

hiera-video launch-slurm --nodes 4 --gpus 8 --partition gpu --cfg k400_hiera_l
hiera-video launch-slurm --slurm qos=high --slurm exclude=n7 --cfg k400_hiera_l

On this machine, without SLURM:
hiera-video launch-slurm --cluster local --gpus 0 --cfg motion_hiera_micro

SLURM sends SIGUSR1 before the time limit and SIGTERM at preemption. The run then writes a
checkpoint after its current step or validation, and submitit queues the same job again. A job
that is cancelled with scancel is not queued again.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hiera_video.cli.arguments import config_parser
from hiera_video.cli.run import run_tool
from hiera_video.config.load import find_config, load_config
from hiera_video.config.schema import Config
from hiera_video.errors import ConfigError, HieraVideoError
from hiera_video.runtime.slurm_job import SlurmTraining, require_slurm
from hiera_video.utils.checks import require
from hiera_video.workflows.build import has_validation, read_split, resolve_num_classes

logger = logging.getLogger(__name__)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of `train` with the options of the job."""
    found = config_parser("launch-slurm", __doc__)
    found.add_argument(
        "--cluster",
        choices=("slurm", "local"),
        default="slurm",
        help="local: processes on this machine",
    )
    found.add_argument("--nodes", type=int, default=1, help="machines")
    found.add_argument("--gpus", type=int, default=8, help="GPUs per node")
    found.add_argument("--tasks", type=int, help="processes per node; default: one per GPU")
    found.add_argument(
        "--cpus", type=int, default=10, help="CPU cores per process, for data.workers"
    )
    found.add_argument(
        "--hours", type=float, default=24, help="time limit, after which the job is queued again"
    )
    found.add_argument(
        "--signal-seconds",
        type=int,
        default=600,
        help="send SIGUSR1 this long before the time limit; longer than a step plus a validation",
    )
    found.add_argument("--partition")
    found.add_argument("--account")
    found.add_argument(
        "--slurm",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="any other sbatch option, such as qos=high; may be repeated",
    )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Check the configuration, submit the job, log its number and the path of its log."""
    arguments = make_parser().parse_intermixed_args(argv)
    parameters = job_parameters(arguments)
    config = load_config(arguments.cfg, arguments.overrides)
    warn_of_lists(config)
    command = ("--cfg", str(find_config(arguments.cfg).resolve()), *arguments.overrides)
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = "USR1"  # read when submitit is imported
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("submitit is not installed; pip install 'hiera-video[slurm]'") from error
    script = Path(__file__).resolve().with_name("train.py")
    if arguments.dry_run:
        logger.info(
            "would submit to %s: %s %s, with %s",
            arguments.cluster, script, " ".join(command), parameters,
        )  # fmt: skip
        return 0
    require_slurm(arguments.cluster)
    executor = submitit.AutoExecutor(
        Path(config.out_dir).resolve() / "slurm",
        cluster=arguments.cluster,
        slurm_max_num_timeout=10_000,
    )
    executor.update_parameters(
        **{key: value for key, value in parameters.items() if value is not None}
    )
    job = executor.submit(SlurmTraining(str(script), command))
    logger.info("job %s; log: %s", job.job_id, job.paths.stderr)
    if arguments.cluster == "local":
        try:
            job.results()  # local jobs end with the process that started them
        except submitit.core.utils.FailedJobError:
            logger.error("error: job %s failed; its log: %s", job.job_id, job.paths.stderr)
            return 1
    return 0


def warn_of_lists(config: Config) -> None:
    """Log what a training here would refuse of the lists; the job's nodes may have other files."""
    try:
        train = read_split(config, "train")
        val = [read_split(config, "val")] if has_validation(config) else []
        resolve_num_classes(config, train, *val)
    except HieraVideoError as error:
        logger.warning("warning: on this machine, the job would fail: %s", error)


def job_parameters(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return submitit's parameters of the job. Raises `ConfigError` for wrong options."""
    for name, least in (("nodes", 1), ("gpus", 0), ("tasks", 1), ("cpus", 1)):
        value = getattr(arguments, name)
        require(value is None or value >= least, f"--{name} {value}: must be {least} or more")
    limit = round(3600 * arguments.hours)
    if not 0 < arguments.signal_seconds < limit:
        raise ConfigError(
            f"--signal-seconds={arguments.signal_seconds}: must be above 0 and below the time "
            f"limit of {limit} s; lower it or raise --hours"
        )
    options = dict(text.removeprefix("--").partition("=")[::2] for text in arguments.slurm)
    if not all(options) or not all(options.values()):
        given = " ".join(arguments.slurm)
        raise ConfigError(f"--slurm {given}: must be KEY=VALUE, such as qos=high")
    return {
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


if __name__ == "__main__":
    run_tool(main)
