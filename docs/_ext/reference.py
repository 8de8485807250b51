"""Sphinx directives that generate the configuration reference and the command reference."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from textwrap import dedent
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from hiera_video.cli.arguments import keys
from hiera_video.cli.main import COMMANDS, command_module
from hiera_video.config.schema import Config

KINDS = {str: "text", int: "integer", float: "number", bool: "true or false"}


class ConfigKeys(SphinxDirective):
    """`config-keys`: every key of the configuration, with type, default and meaning."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n".join(key_lines()), allow_section_headings=True)


def key_lines() -> Iterator[str]:
    """Yield Markdown for all keys, one section of the configuration after the other."""
    kinds, section = dict(key_kinds()), None
    for key, text in keys():
        head, _, meaning = text.partition("\n")
        if key.rpartition(".")[0] != section:
            section = key.rpartition(".")[0]
            yield f"\n## {section or 'other keys'}\n"
        yield f"```{{confval}} {key}"
        yield f":type: {kinds[key]}"
        yield f":default: `{head.partition(': ')[2]}`\n"
        yield f"{' '.join(meaning.split())}\n```\n"


def key_kinds(schema: type = Config, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every key and a phrase for the values that it takes."""
    hints = get_type_hints(schema)
    for item in fields(schema):
        kind = hints[item.name]
        if is_dataclass(kind):
            yield from key_kinds(kind, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", describe(kind)


def describe(kind: Any) -> str:
    """Return a phrase for a type: `integer`, `number or null`, or the choices of a literal."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (Union, UnionType):
        known = [describe(item) for item in arguments if item is not NoneType]
        return " or ".join([*known, "null"] if NoneType in arguments else known)
    if origin is tuple:
        count = "" if arguments[-1] is Ellipsis else f"{len(arguments)} × "
        return f"list of {count}{describe(arguments[0])}"
    return KINDS[kind]


class Commands(SphinxDirective):
    """`commands`: every command with its options, from the argument parsers."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n".join(command_lines()), allow_section_headings=True)


def command_lines() -> Iterator[str]:
    """Yield Markdown for all commands."""
    for name, parser in parsers():
        yield f"\n## {name}\n"
        for paragraph in (parser.description or "").strip().split("\n\n"):
            yield f"{as_markdown(paragraph)}\n"
        yield f"```{{program}} hiera-video {name}\n```\n"
        for action in parser._actions:
            if action.help is not argparse.SUPPRESS and "--help" not in action.option_strings:
                yield f"```{{option}} {option_name(action)}\n\n{option_text(action)}\n```\n"


def as_markdown(paragraph: str) -> str:
    """Return a paragraph of a help text: commands and indented lines as code, else prose."""
    first, *others = paragraph.splitlines()
    if first.startswith(("hiera-video ", "torchrun ", "  ")):
        return f"```text\n{paragraph}\n```"
    if first.endswith(":") and others:
        return f"{plain(first)}\n\n```text\n{dedent(chr(10).join(others))}\n```"
    return plain(paragraph)


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield each command and its parser."""
    for name in COMMANDS:
        yield name, command_module(name).make_parser()


def option_name(action: argparse.Action) -> str:
    """Return an option with its value, as in `--topk TOPK`."""
    value = ""
    if action.nargs != 0:
        choices = "|".join(map(str, action.choices or ()))
        name = action.dest.upper() if action.option_strings else action.dest
        value = str(action.metavar or choices or name)
    names = [f"{name} {value}".strip() for name in action.option_strings]
    return ", ".join(names) or value


def option_text(action: argparse.Action) -> str:
    """Return an option's help with its placeholders filled in."""
    text = (action.help or "").replace("%(default)s", str(action.default))
    text += " (required)" if action.required and action.option_strings else ""
    return plain(text.replace("%(prog)s", "hiera-video").replace("%%", "%"))


def plain(text: str) -> str:
    """Return text of a terminal as Markdown: no character of it is markup but backticks."""
    return re.sub(r"([\\*_<>\[\]{}|])", r"\\\1", " ".join(text.split()))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("config-keys", ConfigKeys)
    app.add_directive("commands", Commands)
    return {"version": "1", "parallel_read_safe": True}
