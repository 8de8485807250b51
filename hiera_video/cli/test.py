"""Test a trained model with several views per video.

hiera-video test --run runs/x
hiera-video test --run runs/x --checkpoint last data.test=lists/other.csv
hiera-video test --cfg k400_hiera_b --checkpoint mae_k400_ft_k400
hiera-video test --compare runs/a/results.json runs/b/results.json
hiera-video test --run runs/x --segments data.test=lists/untrimmed.csv

Writes results.json, predictions.csv, predictions.npz and report.html into `out_dir`; if it has the
results of other videos, into a folder there that is named after the list.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hiera_video.cli.arguments import WHICH, config_parser
from hiera_video.cli.run import run_tool
from hiera_video.config.load import load_config, run_config_file
from hiera_video.config.schema import Config
from hiera_video.data.detection.key_frame import BoxManifest
from hiera_video.utils.checks import require
from hiera_video.utils.extras import require_extra
from hiera_video.workflows.build import read_split


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = config_parser("test", __doc__, with_run=True)
    add = parser.add_argument
    add(
        "--checkpoint",
        metavar="WEIGHTS",
        help="best or last of the run, a file, folder, tag or hf-hub:owner/name; the same as "
        "test.checkpoint=",
    )
    add(
        "--compare",
        nargs=2,
        metavar="RESULTS",
        help="print what changed between two results.json of the same videos",
    )
    add(
        "--page",
        metavar="FILE",
        help="with --compare, also write a page with the curves of both runs and the "
        "reconstructions of their masked pre-training",
    )
    add(
        "--segments",
        action="store_true",
        help="with --run, find segments in the untrimmed videos of data.test (a list of labelled "
        "segments) and compute their mAP at temporal overlaps of 0.3 to 0.7",
    )
    parser.usage = (
        "%(prog)s (--cfg FILE | --run DIR) [--checkpoint WEIGHTS] [--dry-run] [key=value ...]\n"
        "       %(prog)s --compare RESULTS RESULTS [--page FILE]"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Check configuration and manifest, then import torch and test; return the exit code."""
    compare_parser = argparse.ArgumentParser(add_help=False)  # --compare needs no --cfg
    compare_parser.add_argument("--compare", nargs=2)
    compare_parser.add_argument("--page", type=Path)
    known = compare_parser.parse_known_args(argv)[0]
    require(not known.page or known.compare, f"--page {known.page}: goes with --compare only")
    if known.compare:
        from hiera_video.eval.compare import compare

        comparison = compare(*known.compare)
        if known.page:
            require_extra("train")
            from hiera_video.workflows.compare import write_page

            write_page(known.page, comparison, known.compare)
        print(comparison.describe(*known.compare))
        return 0
    arguments = make_parser().parse_intermixed_args(argv)  # flags may stand between keys
    require_extra("train")
    config = read_config(arguments)
    if arguments.segments:
        return test_segments(config, arguments)
    manifest = read_split(config, "test")
    manifest.require_labels()
    if isinstance(manifest, BoxManifest):
        from hiera_video.workflows.detection_test import run_detection_test

        return run_detection_test(config, manifest, dry_run=arguments.dry_run)
    from hiera_video.workflows.test import run_test

    return run_test(config, manifest, dry_run=arguments.dry_run)


def test_segments(config: Config, arguments: argparse.Namespace) -> int:
    """Check the arguments of `--segments`, then import torch and test."""
    checkpoint = arguments.checkpoint
    require(
        arguments.run is not None and checkpoint in (None, *WHICH) and not arguments.dry_run,
        "--segments: goes with --run DIR, --checkpoint best or last, and key=value",
    )
    from hiera_video.workflows.labelled_segments import run_segment_test
    from hiera_video.workflows.predict import ModelSource

    return run_segment_test(config, ModelSource(arguments.run, checkpoint))


def read_config(arguments: argparse.Namespace) -> Config:
    """Return the configuration of `--cfg` or of the run, with the checkpoint."""
    overrides = list(arguments.overrides)
    checkpoint = arguments.checkpoint
    if arguments.run is None:
        if checkpoint is not None and checkpoint not in WHICH:
            overrides.append(f"test.checkpoint={checkpoint}")
        config = load_config(arguments.cfg, overrides)
    else:
        # out_dir first: the folder may have been moved, and an override may name another
        overrides = [f"out_dir={arguments.run}", "test.checkpoint=null", *overrides]
        if checkpoint is not None and checkpoint not in WHICH:
            overrides.append(f"test.checkpoint={checkpoint}")
        config = load_config(run_config_file(arguments.run), overrides)
    if checkpoint in WHICH:
        folder = Path(arguments.run or config.out_dir, "checkpoints", checkpoint)
        require(
            folder.is_dir(),
            f"--checkpoint {checkpoint}: {folder.parent} has none; 'last' is saved while training, "
            "'best' after validation on data.val",
        )
        config = replace(config, test=replace(config.test, checkpoint=str(folder)))
    elif arguments.run is not None and config.test.checkpoint is None:
        config = replace(config, test=replace(config.test, checkpoint=arguments.run))
    return config


if __name__ == "__main__":
    run_tool(main)
