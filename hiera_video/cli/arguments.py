"""Command-line arguments of the commands that take a configuration, and the `--keys` reference."""

from __future__ import annotations

import argparse
import ast
import errno
import inspect
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from glob import glob
from pathlib import Path, PurePath
from textwrap import fill
from typing import Any, cast, get_type_hints

from hiera_video.config.load import suggest_key
from hiera_video.config.schema import Config
from hiera_video.errors import ConfigError
from hiera_video.utils.empty_arguments import refuse_empty_arguments
from hiera_video.utils.text_files import shorten

WIDTH = 98
WHICH = ("best", "last")
"""Checkpoints of a run by name."""


class CommandParser(argparse.ArgumentParser):
    """Parser that refuses empty arguments."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse arguments; all methods of the parser come here."""
        given = list(sys.argv[1:] if args is None else args)
        refuse_empty_arguments(given)
        return super().parse_known_args(given, namespace)


def command_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return the parser of a command, which prints `description` with its line breaks."""
    return CommandParser(
        prog=f"hiera-video {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def config_parser(
    name: str, description: str | None, *, with_run: bool = False
) -> argparse.ArgumentParser:
    """Return a parser of `--cfg FILE --dry-run --keys [KEY] key=value …`.

    Parse with `parse_intermixed_args`, so that options may stand between keys.

    Args:
        name: The command.
        description: Its module's docstring.
        with_run: Add `--run DIR`, which may stand instead of `--cfg`.
    """
    parser = command_parser(name, description)
    cfg_help = "configuration: a file, or a name that `hiera-video configs` lists"
    if with_run:
        source = parser.add_mutually_exclusive_group(required=True)
        source.add_argument("--cfg", metavar="FILE", help=cfg_help)
        source.add_argument("--run", metavar="DIR", help="out_dir of a run")
    else:
        parser.add_argument("--cfg", metavar="FILE", required=True, help=cfg_help)
    parser.add_argument(
        "--dry-run", action="store_true", help="build everything, run two steps, write nothing"
    )
    parser.add_argument(
        "--keys",
        action=_PrintKeys,
        nargs="?",
        metavar="KEY",
        help="print all configuration keys, or those below KEY, and exit",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="for example train.batch_size=8 optim.lr_for_batch=256",
    )
    return parser


def add_model_source(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add `--run` or `--model`, and `--checkpoint` with its older names."""
    source = parser.add_mutually_exclusive_group(required=required)
    source.add_argument("--run", metavar="DIR", help="out_dir of a run")
    source.add_argument("--model", metavar="NAME", help="hiera_base_16x224, …; with --checkpoint")
    parser.add_argument(
        "--checkpoint",
        "--which",
        "--pretrained",
        metavar="WEIGHTS",
        help="with --run: best or last (default: best, else last); with --model: file, folder, tag "
        "or hf-hub:owner/name",
    )


def check_model_source(arguments: argparse.Namespace, *, hint: str = "") -> None:
    """Check that `--checkpoint` suits `--run` or `--model`.

    Raises:
        ConfigError: It does not; `hint` ends the message about a model without weights.
    """
    checkpoint = arguments.checkpoint
    if arguments.run is None and arguments.model is not None and checkpoint is None:
        raise ConfigError(
            f"--model {arguments.model}: needs --checkpoint: a file, folder, tag or "
            f"hf-hub:owner/name{hint}"
        )
    if arguments.run is not None and checkpoint not in (None, *WHICH):
        raise ConfigError(
            f"--checkpoint {checkpoint}: must be best or last with --run; other weights go with "
            "--model NAME"
        )


def split_paths(texts: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Split arguments into the values of `input=` and of `output=`, and the others."""
    inputs = [text.removeprefix("input=") for text in texts if text.startswith("input=")]
    outputs = [text.removeprefix("output=") for text in texts if text.startswith("output=")]
    rest = [text for text in texts if not text.startswith(("input=", "output="))]
    return inputs, outputs, rest


def expand_globs(paths: Sequence[str]) -> list[str]:
    """Return paths with each quoted glob, such as `'videos/*.mp4'`, replaced by what it matches.

    Raises:
        ConfigError: A glob matches nothing.
    """
    found = list[str]()
    for path in paths:
        if not any(sign in path for sign in "*?[") or os.path.exists(path):  # noqa: PTH110
            found.append(path)
            continue
        names = sorted(glob(path, recursive=True))  # noqa: PTH207 (absolute and relative patterns)
        if not names:
            raise ConfigError(f"{path}: matches no file; correct the glob, and check it with ls")
        found += names
    return found


def refuse_rest(rest: Sequence[str], accepted: str) -> None:
    """Raise `ConfigError` if there are arguments that a command does not take."""
    if rest:
        raise ConfigError(f"{rest[0]}: unknown argument; {accepted}")


def single(values: Sequence[str], key: str, flag: str, given: str | None = None) -> str | None:
    """Return the one value of `key` or of its older spelling `flag`, None if there is none.

    Raises:
        ConfigError: There are several.
    """
    found = [*values, *([given] if given is not None else [])]
    if len(found) > 1:
        raise ConfigError(
            f"{key}={found[1]}: given twice ({key}={found[0]} or {flag}); remove one of them"
        )
    return found[0] if found else None


def set_outputs(
    arguments: argparse.Namespace, outputs: Sequence[str], options: Mapping[str, str]
) -> None:
    """Store each `output=FILE` as the option that its suffix stands for.

    Args:
        arguments: The parsed arguments.
        outputs: Values of `output=`.
        options: Suffix → name of the option, as `{".csv": "csv"}`.

    Raises:
        ConfigError: The suffix is another, the option is set already, or a name is too long.
    """
    for text in outputs:
        name = PurePath(text).name.lower()
        suffix = next((end for end in options if name.endswith(end) and name != end), None)
        if suffix is None:
            raise ConfigError(f"output={text}: must end in {' or '.join(options)}")
        name = options[suffix]
        if getattr(arguments, name) is not None:
            raise ConfigError(f"output={text}: a second {suffix} file; remove one of them")
        setattr(arguments, name, text)
    for name in options.values():
        if getattr(arguments, name) is not None:
            check_file_name(getattr(arguments, name))


def check_file_name(path: str) -> None:
    """Check that a file may have this name, and its temporary file the longer one.

    Raises:
        ConfigError: It is too long, or leads through a circle of links.
    """
    name = PurePath(path).name
    try:
        Path(path).with_name(f".{name}.unfinished").lstat()
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise ConfigError(
                f"output={shorten(path)}: cannot be written ({error.strerror}); choose another name"
            ) from error


class _PrintKeys(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        wanted = str(values or "")
        found = [text for key, text in keys() if not wanted or f"{key}.".startswith(f"{wanted}.")]
        if not found:
            parser.error(f"--keys {wanted}: no such key; {suggest_key(wanted)}")
        print("\n".join(found))
        parser.exit()


def keys(schema: type = Config, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every configuration key and a paragraph with its default and meaning."""
    kinds, meanings = get_type_hints(schema), _meanings(schema)
    for item in fields(schema):
        kind, key = kinds[item.name], f"{prefix}{item.name}"
        if is_dataclass(kind):
            yield from keys(cast(type, kind), f"{key}.")
        else:
            meaning = fill(
                meanings[item.name], WIDTH, initial_indent="    ", subsequent_indent="    "
            )
            yield key, f"{key}: {_default(item)}\n{meaning}"


def _meanings(schema: type) -> dict[str, str]:
    """Return the docstring below each field of a dataclass, by field name."""
    (node,) = ast.parse(inspect.getsource(schema)).body
    assert isinstance(node, ast.ClassDef)
    found = {}
    for field, text in zip(node.body, node.body[1:]):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def _default(item: Field[Any]) -> str:
    """Return a field's default as it is written in YAML."""
    value = item.default_factory() if item.default_factory is not MISSING else item.default
    if value is MISSING:
        return "(required)"
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )
