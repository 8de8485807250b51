"""Test a trained model with several views per video.

python tools/test_net.py --cfg configs/motion_hiera_micro.yaml
python tools/test_net.py --cfg configs/k400_hiera_b.yaml test.checkpoint=hiera_base_16x224.pth
python tools/test_net.py --compare runs/a/results.json runs/b/results.json

Writes results.json, predictions.csv, predictions.npz and report.html into `out_dir`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from hiera_video.cli.arguments import config_parser
from hiera_video.cli.run import run_tool
from hiera_video.config.load import load_config
from hiera_video.workflows.build import read_split


def main(argv: Sequence[str] | None = None) -> int:
    """Check configuration and manifest, then import torch and test; return the exit code."""
    compare_parser = argparse.ArgumentParser(add_help=False)  # --compare needs no --cfg
    compare_parser.add_argument("--compare", nargs=2)
    files = compare_parser.parse_known_args(argv)[0].compare
    if files:
        from hiera_video.eval.compare import compare

        print(compare(*files).describe(*files))
        return 0
    parser = config_parser(__doc__ or "")
    parser.usage = (
        "%(prog)s --cfg FILE [--dry-run] [key=value ...]\n       %(prog)s --compare RESULTS RESULTS"
    )
    parser.add_argument(
        "--compare",
        nargs=2,
        metavar="RESULTS",
        help="print what changed between two results.json of the same videos",
    )
    arguments = parser.parse_intermixed_args(argv)  # flags may stand between keys
    config = load_config(arguments.cfg, arguments.overrides)
    manifest = read_split(config, "test")
    manifest.require_labels()
    from hiera_video.workflows.test import run_test

    return run_test(config, manifest, dry_run=arguments.dry_run)


if __name__ == "__main__":
    run_tool(main)
