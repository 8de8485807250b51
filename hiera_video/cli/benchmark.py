"""Measure the speed of models, training steps, masked pre-training or data loading on this machine.

hiera-video benchmark model --help                  # inference
hiera-video benchmark train --help                  # a fine-tuning step
hiera-video benchmark mae --help                    # a masked pre-training step
hiera-video benchmark data --cfg my.yaml            # loading, stage by stage

`hiera-video benchmark SUBJECT --help` lists the arguments of a subject.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from hiera_video.cli.arguments import command_parser
from hiera_video.cli.run import run_tool
from hiera_video.errors import ConfigError

PACKAGE = Path(__file__).resolve().parents[1]
FOLDERS = (PACKAGE / "benchmarks", PACKAGE.parent / "benchmarks")
"""Folder of the scripts: inside an installed package, beside the package in a checkout."""
SCRIPTS = {"model": "speed", "train": "speed", "mae": "speed", "data": "data_stages"}
"""Subject → module in benchmarks/; modules with several subjects take the subject first."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the subject."""
    parser = command_parser("benchmark", __doc__)
    parser.add_argument("subject", choices=SCRIPTS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Import the script of a subject and run it."""
    parser = make_parser()
    given = list(sys.argv[1:] if argv is None else argv)
    subject = parser.parse_args(given[:1]).subject
    folder = next((folder for folder in FOLDERS if folder.is_dir()), None)
    if folder is None:
        raise ConfigError(f"{FOLDERS[0]}: no such folder; install hiera-video again")
    sys.path.insert(0, str(folder))
    script = SCRIPTS[subject]
    takes_subject = list(SCRIPTS.values()).count(script) > 1
    if script == "speed" and folder == FOLDERS[0] and "--out" not in given:
        given += ["--out", "speed.json"]  # in this folder, not in the installed package
    code: int = importlib.import_module(script).main(given if takes_subject else given[1:])
    return code


if __name__ == "__main__":
    run_tool(main)
