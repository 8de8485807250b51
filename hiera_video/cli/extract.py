"""Features of clips, from one video to a cluster's worth of them; the same command again goes on where it was.

python tools/extract_features.py --run runs/motion_hiera_micro input=videos/ output=features/
python tools/extract_features.py --cfg configs/k400_hiera_b.yaml model.pretrained=mae_k400_ft_k400 input='v/*.mp4' \\
    output=features/ features.window=2 features.stride=1 features.pooling=temporal features.dtype=fp16
torchrun --nproc-per-node 8 tools/extract_features.py --run runs/x input=videos.csv output=features/
python tools/extract_features.py --run runs/x input=videos.csv output=features/ --engine ray --tasks 16
python tools/extract_features.py --run runs/x input=videos.csv output=features/ --engine slurm --tasks 64 --partition gpu

Read them with hv.FeatureStore("features/"). Every key is in hiera_video/features/config.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hiera_video.cli.run import run_tool
from hiera_video.errors import ConfigError
from hiera_video.workflows.extract import check, config_of, read_input, run_extraction


def parser() -> argparse.ArgumentParser:
    """A configuration or a run, overrides, and the engine."""
    found = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = found.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--cfg", metavar="FILE", help="experiment, such as configs/k400_hiera_b.yaml"
    )
    source.add_argument(
        "--run", metavar="DIR", help="out_dir of a finished run: its configuration and best weights"
    )
    found.add_argument("--dry-run", action="store_true", help="two videos, nothing written")
    found.add_argument(
        "--engine",
        choices=("here", "ray", "slurm"),
        default="here",
        help="here: this process, or torchrun's",
    )
    found.add_argument(
        "--tasks",
        type=int,
        help="ray: actors that hold the model (one a GPU); slurm: jobs of the array",
    )
    found.add_argument(
        "--cluster", choices=("slurm", "local"), default="slurm", help="local: jobs on this machine"
    )
    found.add_argument("--gpus", type=int, default=1, help="slurm: GPUs of a job")
    found.add_argument(
        "--cpus", type=int, default=10, help="slurm: cores of a job, for data.workers"
    )
    found.add_argument(
        "--hours", type=float, default=24, help="slurm: time limit; the job comes back after it"
    )
    found.add_argument("--partition", help="slurm")
    found.add_argument("--account", help="slurm")
    found.add_argument(
        "overrides", nargs="*", metavar="key=value", help="input=… output=… features.window=2 …"
    )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Check everything that needs no torch first: a mistake must answer at once."""
    arguments = parser().parse_intermixed_args(argv)  # flags may stand between keys
    short = ("input=", "output=")
    overrides = tuple(
        f"features.{text}" if text.startswith(short) else text for text in arguments.overrides
    )
    config = config_of(arguments.run or arguments.cfg, overrides)
    check(config)
    if arguments.tasks is not None and not arguments.tasks >= 1:
        raise ConfigError(f"--tasks {arguments.tasks}: must be 1 or more")
    manifest = read_input(config)
    if arguments.engine == "slurm" and not arguments.dry_run:
        from hiera_video.features.engine_slurm import submit

        source = ("--run", arguments.run) if arguments.run else ("--cfg", arguments.cfg)
        return submit(
            str(Path(__file__).resolve()),
            (source[0], str(Path(source[1]).resolve()), *arguments.overrides),
            folder=str(config.features.output),
            tasks=arguments.tasks or 1,
            cluster=arguments.cluster,
            gpus_per_node=arguments.gpus,
            cpus_per_task=arguments.cpus,
            timeout_min=round(60 * arguments.hours),
            slurm_partition=arguments.partition,
            slurm_account=arguments.account,
        )
    return run_extraction(
        config, manifest, engine=arguments.engine, actors=arguments.tasks, dry_run=arguments.dry_run
    )


if __name__ == "__main__":
    run_tool(main)
