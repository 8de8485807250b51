"""Configuration keys of commands that use a trained model: `key=value` beside their own arguments.

Only keys that leave the model as it was trained are accepted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from hiera_video.config.schema import Config
from hiera_video.errors import ConfigError
from hiera_video.utils.checks import require

KEYS = {field.name for field in fields(Config)}
"""Sections of the configuration, and its keys without a section."""


def split_overrides(
    texts: Sequence[str],
    command: str,
    sections: Sequence[str],
    options: Mapping[str, str] | None = None,
) -> tuple[tuple[str, ...], list[str]]:
    """Split arguments into overrides of the configuration and the others.

    A path that contains `=` is no override if it exists, or if its start is no section.

    Args:
        texts: The arguments.
        command: Its name, for messages.
        sections: Sections whose keys it accepts.
        options: Key → option of the command that stands for it.

    Raises:
        ConfigError: A key is of another section, or has an option.
    """
    overrides, rest = list[str](), list[str]()
    for text in texts:
        key, equals, _ = text.partition("=")
        section = key.partition(".")[0]
        if not equals or section not in KEYS or Path(text).exists():
            rest.append(text)
            continue
        *others, last = sections
        accepted = f"{', '.join(others)} and {last}" if others else last
        require(
            section in sections,
            f"{text}: {command} accepts keys of {accepted} only; remove it",
        )
        if options and key in options:
            raise ConfigError(f"{text}: use {options[key]} instead")
        overrides.append(text)
    return tuple(overrides), rest
