"""Test a trained model with several views a video; writes results, predictions and a report into `out_dir`.

python tools/test_net.py --cfg configs/motion_hiera_micro.yaml
python tools/test_net.py --cfg configs/k400_hiera_b.yaml test.checkpoint=hiera_base_16x224.pth test.clips=5 test.crops=3
python tools/test_net.py --compare runs/a/results.json runs/b/results.json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from hiera_video.cli.arguments import config_parser
from hiera_video.cli.run import run_tool
from hiera_video.config.load import load_config
from hiera_video.workflows.build import manifest_of


def main(argv: Sequence[str] | None = None) -> int:
    """Check everything that needs no torch first: a mistake must answer at once."""
    early = argparse.ArgumentParser(add_help=False)  # a comparison needs no --cfg
    early.add_argument("--compare", nargs=2)
    compared = early.parse_known_args(argv)[0].compare
    if compared:
        from hiera_video.eval.compare import compare, describe

        print(describe(compare(*compared), *compared))
        return 0
    parser = config_parser(__doc__ or "")
    parser.usage = (
        "%(prog)s --cfg FILE [--dry-run] [key=value ...]\n       %(prog)s --compare RESULTS RESULTS"
    )
    parser.add_argument(
        "--compare",
        nargs=2,
        metavar="RESULTS",
        help="two results.json of the same videos: what changed",
    )
    arguments = parser.parse_intermixed_args(argv)  # flags may stand between keys
    config = load_config(arguments.cfg, arguments.overrides)
    manifest = manifest_of(config, "test")
    manifest.require_labels()
    from hiera_video.workflows.test import test_run

    return test_run(config, manifest, dry_run=arguments.dry_run)


if __name__ == "__main__":
    run_tool(main)
