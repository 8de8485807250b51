"""Empty arguments of a command, as an unset variable of the shell leaves them."""

from __future__ import annotations

from collections.abc import Sequence

from hiera_video.errors import ConfigError

PATHS = ("input=", "output=", "features.input=", "features.output=")


def refuse_empty_arguments(arguments: Sequence[str]) -> None:
    """Refuse empty arguments: an empty path would mean the current folder.

    Raises:
        ConfigError: An argument, or the value after `input=`, `output=` or an option, is empty.
    """
    for before, text in zip(("", *arguments), arguments):
        is_option = before.startswith("--") and "=" not in before and before != "--"
        if not text:
            name = f"the argument after {before}" if is_option else "an argument"
        elif text in PATHS or (text.startswith("--") and text.endswith("=") and text != "--="):
            name = text
        else:
            continue
        raise ConfigError(
            f"{name} is empty: give a value, or remove it (is a variable of the shell unset?)"
        )
