"""Make the lists, re-encoded copies and tar shards of a data set.

hiera-video prepare folder --help           # your own videos
hiera-video prepare kinetics --help         # Kinetics-400, -600, -700
hiera-video prepare ssv2 --help             # Something-Something v2
hiera-video prepare ucf101_hmdb51 --help    # UCF101, HMDB51
hiera-video prepare ava --help              # AVA: actions of persons in boxes
hiera-video prepare motion --help           # the generated set of the demo
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from hiera_video.cli.arguments import command_parser

DATASETS = ("folder", "kinetics", "ssv2", "ucf101_hmdb51", "ava", "motion")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the data set's name."""
    parser = command_parser("prepare", __doc__)
    parser.add_argument("dataset", choices=DATASETS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Import the module of the data set and run it with the other arguments."""
    given = list(sys.argv[1:] if argv is None else argv)
    dataset = make_parser().parse_args(given[:1]).dataset
    with _one_thread():  # the work is done by processes
        code: int = import_module(f"hiera_video.cli.datasets.{dataset}").main(given[1:])
    return code


@contextmanager
def _one_thread() -> Iterator[None]:
    """Have libraries that are imported meanwhile use one thread, as long as nothing else is set.

    The variable is removed afterwards: what the same process trains next, as in the demo, would
    run on one thread too.
    """
    variable = "OMP_NUM_THREADS"
    if variable in os.environ:
        yield
        return
    os.environ[variable] = "1"
    try:
        yield
    finally:
        del os.environ[variable]
