"""List the configurations that come with the package, print one, or copy one to edit.

hiera-video configs                                     # names and published numbers
hiera-video configs k400_hiera_b                        # its content
hiera-video configs --copy k400_hiera_b output=my.yaml  # then: hiera-video train --cfg my.yaml

`--cfg NAME` takes a name as well as a file. The files that numbers come from, such as
benchmarks/results/demo.json, and the pages in docs/ are in the source repository, not in the
installed package.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from hiera_video.cli.arguments import (
    WIDTH,
    command_parser,
    refuse_rest,
    single,
    split_paths,
)
from hiera_video.config.catalogue import list_configs, read_notes
from hiera_video.errors import ConfigError
from hiera_video.utils.checks import require


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser("configs", __doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="configuration to print")
    parser.add_argument(
        "--copy", metavar="NAME", help="write that one to output=FILE (NAME.yaml in this folder)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """List, print or copy configurations."""
    arguments = make_parser().parse_intermixed_args(argv)
    inputs, outputs, names = split_paths(arguments.names)
    refuse_rest(inputs, "give the name of a configuration")
    if arguments.copy:
        refuse_rest(names, "--copy takes one name")
        copy_config(arguments.copy, single(outputs, "output", "output="))
        return 0
    require(not outputs, "output=: needs --copy NAME")
    if names:
        print("\n".join(find(name).read_text(encoding="utf-8") for name in names), end="")
        return 0
    for name, file in list_configs().items():
        found = read_notes(file.read_text(encoding="utf-8"))
        numbers = "; ".join(
            f"{key} {found.notes[key]}" for key in ("published", "reached") if key in found.notes
        )
        print(name)
        for text in filter(None, (found.title, numbers)):
            print(fill(text, WIDTH, initial_indent="    ", subsequent_indent="    "))
    return 0


def find(name: str) -> Path:
    """Return the file of a configuration of the package."""
    known = list_configs()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "`hiera-video configs` lists them"
        raise ConfigError(f"{name}: no such configuration; {hint}")
    return known[name]


def copy_config(name: str, output: str | None) -> None:
    """Write a configuration of the package to a new file."""
    content = find(name).read_bytes()
    target = Path(output or f"{name}.yaml")
    try:
        with target.open("xb") as file:
            file.write(content)
    except FileExistsError as error:
        raise ConfigError(f"{target}: exists; choose another name with output=FILE") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{target}: there is no folder {target.parent}; create it") from error
    print(f"{target}: edit it, then run hiera-video train --cfg {target}")
