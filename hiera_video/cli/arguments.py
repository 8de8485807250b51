"""Command-line arguments of the commands that take a configuration, and the `--keys` reference."""

from __future__ import annotations

import argparse
import ast
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from textwrap import fill
from typing import Any, cast, get_type_hints

from hiera_video.config.load import suggest_key
from hiera_video.config.schema import Config

WIDTH = 98


def command_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that prints `description`, a module's docstring, with its line breaks."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def config_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of `--cfg FILE --dry-run --keys [KEY] key=value …`.

    Parse with `parse_intermixed_args`, so that options may stand between keys.
    """
    parser = command_parser(description)
    parser.add_argument(
        "--cfg", required=True, metavar="FILE", help="experiment, such as configs/k400_hiera_b.yaml"
    )
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
