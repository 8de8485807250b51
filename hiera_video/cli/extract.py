"""Extract features of videos; the same command resumes after an interruption.

hiera-video extract --run runs/motion_hiera_micro input=videos/ output=features/
torchrun --nproc-per-node 8 -m hiera_video extract --run runs/x input=videos.csv output=features/
hiera-video extract --run runs/x input=videos.csv output=features/ \\
    --engine slurm --tasks 64 --partition gpu
hiera-video extract --cfg k400_hiera_b input='v/*.mp4' output=features/ \\
    model.pretrained=mae_k400_ft_k400 features.window=2 features.stride=1 features.pooling=temporal

Read the features with hv.FeatureStore("features/").
`hiera-video train --keys features` prints all keys of the `features` section.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hiera_video.cli.arguments import check_file_name, command_parser
from hiera_video.cli.run import run_tool
from hiera_video.config.load import find_config
from hiera_video.errors import ConfigError
from hiera_video.utils.extras import require_extra
from hiera_video.workflows.extract import (
    check_extraction,
    read_input,
    resolve_config,
    run_extraction,
)

FILE_SUFFIXES = (".npy", ".npz", ".csv", ".json", ".h5", ".hdf5", ".pt", ".pth", ".parquet")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser("extract", __doc__)
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--cfg", metavar="FILE", help="config file or name, such as k400_hiera_b")
    source.add_argument(
        "--run", metavar="DIR", help="out_dir of a finished run: its config and best weights"
    )
    add("--dry-run", action="store_true", help="extract two videos and write nothing")
    add(
        "--engine",
        choices=("here", "ray", "slurm"),
        default="here",
        help="here: this process, or those that torchrun starts",
    )
    add("--tasks", type=int, help="ray: actors with the model; slurm: jobs of the array")
    add(
        "--cluster",
        choices=("slurm", "local"),
        default="slurm",
        help="slurm engine: where the jobs run; local: processes on this machine",
    )
    add("--gpus", type=int, default=1, help="slurm: GPUs per job")
    add("--cpus", type=int, default=10, help="slurm: cores per job, for data.workers")
    add("--hours", type=float, default=24, help="slurm: time limit, after which a job is requeued")
    add("--partition", help="slurm: partition")
    add("--account", help="slurm: account")
    add("overrides", nargs="*", metavar="key=value", help="input=… output=… features.window=2 …")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Check all that needs no torch, then extract or submit the jobs."""
    arguments = make_parser().parse_intermixed_args(argv)  # flags may stand between keys
    require_extra("features")
    overrides = _full_keys(arguments.overrides)
    config = resolve_config(arguments.run or arguments.cfg, overrides)
    check_extraction(config)
    _check_output(str(config.features.output))
    if arguments.tasks is not None and not arguments.tasks >= 1:
        raise ConfigError(f"--tasks {arguments.tasks}: must be 1 or more")
    manifest = read_input(config)
    if arguments.engine == "slurm" and not arguments.dry_run:
        from hiera_video.features.engine_slurm import submit

        source = ("--run", arguments.run) if arguments.run else ("--cfg", arguments.cfg)
        return submit(
            str(Path(__file__).resolve()),
            (source[0], str(find_config(source[1]).resolve()), *arguments.overrides),
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


def _full_keys(texts: Sequence[str]) -> tuple[str, ...]:
    """Return overrides of the configuration, with `input=` and `output=` under their full keys.

    Raises:
        ConfigError: One of the two has two values.
    """
    overrides = tuple(
        f"features.{text}" if text.startswith(("input=", "output=")) else text for text in texts
    )
    for key in ("features.input=", "features.output="):
        values = dict.fromkeys(text for text in overrides if text.startswith(key))
        if len(values) > 1:
            first, second, *_ = (text.removeprefix("features.") for text in values)
            raise ConfigError(f"{second}: given twice ({first}); remove one of them")
    return overrides


def _check_output(output: str) -> None:
    """Raise `ConfigError` if the folder of the features is a file, or is named like one."""
    path = Path(output)
    check_file_name(output)
    if path.suffix.lower() in FILE_SUFFIXES and not path.is_dir():
        raise ConfigError(
            f"output={output}: must be a folder, for a store of many files; write "
            f"output={path.with_suffix('')}; features.format=npy adds one .npy for each video, and "
            "`hiera-video write-localisation` writes those of ActionFormer and OpenTAD"
        )
    if path.exists() and not path.is_dir():
        raise ConfigError(f"output={output}: is a file; name a folder")


if __name__ == "__main__":  # jobs of a SLURM array run this file
    run_tool(main)
