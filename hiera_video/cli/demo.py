"""Generate videos, pre-train and fine-tune a micro Hiera on them, test it and write a report.

hiera-video demo                      # in this folder: data/ and runs/; minutes on two CPU cores
hiera-video demo --quick output=try   # a few videos and epochs, to check an installation

The same command resumes after an interruption and reuses what is complete.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hiera_video.cli.arguments import command_parser, refuse_rest, single, split_paths
from hiera_video.utils.extras import require_extra

MAE, FINE_TUNED = "motion_hiera_micro_mae", "motion_hiera_micro"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser("demo", __doc__)
    parser.add_argument(
        "paths", nargs="*", metavar="output=DIR", help="folder for data/ and runs/ (this one)"
    )
    parser.add_argument("--quick", action="store_true", help="a few videos and epochs")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the commands of the demo, each in a process of its own."""
    arguments = make_parser().parse_intermixed_args(argv)
    inputs, outputs, rest = split_paths(arguments.paths)
    refuse_rest([*inputs, *rest], "give output=DIR")
    require_extra("train")
    require_extra("demo")
    folder = Path(single(outputs, "output", "output=") or ".")
    for command in commands(folder, quick=arguments.quick):
        print(f"$ hiera-video {shlex.join(command)}", flush=True)
        code = subprocess.run([sys.executable, "-m", "hiera_video", *command]).returncode
        if code:
            return code
    print(f"report: {folder / 'runs' / _name(FINE_TUNED, arguments.quick) / 'report.html'}")
    pictures = folder / "runs" / _name(MAE, arguments.quick) / "reconstructions" / "latest.png"
    print(f"reconstructions: {pictures}")
    return 0


def commands(folder: Path, *, quick: bool) -> list[list[str]]:
    """Return the commands of the demo, without `hiera-video`."""
    data = folder / "data" / _name("motion", quick)
    pretrained, run = (folder / "runs" / _name(name, quick) for name in (MAE, FINE_TUNED))
    lists = [f"data.train={data / 'train.csv'}", f"data.val={data / 'val.csv'}"]
    few, short, views = [], [], []
    if quick:
        few, short = ["--clips-per-class", "12"], ["train.epochs=2"]
        views = ["test.clips=1", "test.crops=1"]
    return [
        ["prepare", "motion", f"output={data}", *few],
        ["train", "--cfg", MAE, *lists, f"out_dir={pretrained}", *short],
        [
            *("train", "--cfg", FINE_TUNED, f"model.pretrained={pretrained}", *lists),
            *(f"out_dir={run}", *short),
        ],
        ["test", "--run", str(run), *views],
    ]


def _name(name: str, quick: bool) -> str:
    return f"{name}_quick" if quick else name
