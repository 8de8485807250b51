"""Empty arguments are refused; those that only look so are not."""

from __future__ import annotations

import pytest

from hiera_video.errors import ConfigError
from hiera_video.utils.empty_arguments import refuse_empty_arguments


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([""], "an argument"),
        (["a.mp4", ""], "an argument"),
        (["--", ""], "an argument"),
        (["--window=2", ""], "an argument"),
        (["input="], "input="),
        (["input=a", "output="], "output="),
        (["features.output="], "features.output="),
        (["--run", ""], "the argument after --run"),
        (["--dry-run", ""], "the argument after --dry-run"),
        (["--run="], "--run="),
    ],
)
def test_an_empty_argument_is_named(arguments: list[str], name: str) -> None:
    words = f"^{name} is empty: give a value, or remove it .is a variable of the shell unset.\\)$"
    with pytest.raises(ConfigError, match=words):
        refuse_empty_arguments(arguments)


def test_other_arguments_are_accepted() -> None:
    refuse_empty_arguments([])
    refuse_empty_arguments(["data.val=", "input=.", ".", "--run", "r", "--keys", "--", "a="])
