"""hiera-video: train, test and use spatiotemporal Hiera."""

# PYTHON_ARGCOMPLETE_OK
from __future__ import annotations

import argparse
import difflib
import os
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from hiera_video import __version__
from hiera_video.cli.run import run_tool

COMMANDS = {
    "train": "train a model, or resume a run",
    "test": "test a trained model with several views; compare two tests",
    "finetune": "fine-tune on a small data set: split, recipe, training, test",
    "average": "average the weights of several checkpoints",
    "predict": "classify videos, folders, lists or a camera",
    "extract": "extract features of videos",
    "search": "search a feature store by example",
    "export": "export a model to torch.export or ONNX",
    "visualize": "draw videos, explanations, training clips or reconstructions",
    "app": "serve a page that shows what a model sees in a video",
    "benchmark": "measure speed on this machine",
    "check-data": "find unreadable, short and duplicate videos",
    "prepare": "make the lists, copies and shards of a data set",
    "launch-slurm": "train on a SLURM cluster",
    "write-localisation": "write features for ActionFormer and OpenTAD",
    "demo": "generate videos, train a small model on them, test it",
    "info": "describe this installation, a model, a run or a configuration",
    "configs": "list, print or copy the configurations",
}
"""Command → what it does."""
EPILOG = """`hiera-video COMMAND --help` describes a command. Configuration is written key=value;
options that begin with -- belong to the command. With several devices:
torchrun --nproc-per-node 8 -m hiera_video train --cfg k400_hiera_b"""


def main() -> NoReturn:
    """Run the command that the arguments name, and exit with its code."""
    if "_ARGCOMPLETE" in os.environ:  # the shell asks for the words that may follow
        import argcomplete

        argcomplete.autocomplete(complete_parser(shlex.split(os.environ["COMP_LINE"])[1:2]))
    run_tool(run_command)


def run_command(argv: Sequence[str] | None = None) -> int:
    """Import the module of the command, run it and return its exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser = make_parser()
    if not given:
        parser.print_help()
        return 0
    name = given[0]
    if name not in COMMANDS:
        parser.parse_args(given[:1])  # --help and --version end here
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(COMMANDS)}"
        parser.error(f"{name}: no such command; {hint}")
    code: int = command_module(name).main(given[1:])
    return code


def command_module(name: str) -> Any:
    """Import the module of a command, which has `main` and `make_parser`."""
    return import_module(f"hiera_video.cli.{name.replace('-', '_')}")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options before a command."""
    width = max(map(len, COMMANDS)) + 2
    listing = "\n".join(f"  {name:{width}}{purpose}" for name, purpose in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="hiera-video",
        usage="hiera-video COMMAND [options] [key=value ...]",
        description=f"{__doc__}\n\ncommands:\n{listing}",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hiera-video {__version__}")
    parser.add_argument("word", nargs="?", help=argparse.SUPPRESS)
    return parser


def complete_parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser of all commands for shell completion.

    Args:
        words: The command that has been typed, if any. Only its options are known: the modules of
            the others are not imported.
    """
    parser = argparse.ArgumentParser(prog="hiera-video")
    commands = parser.add_subparsers()
    for name, purpose in COMMANDS.items():
        typed = [command_module(name).make_parser()] if name in words else []
        commands.add_parser(name, parents=typed, add_help=not typed, help=purpose)
    return parser
