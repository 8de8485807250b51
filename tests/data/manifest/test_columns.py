"""Columns of a list's lines: time is linear in their length."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hiera_video.data.manifest.columns import SEPARATORS, ColumnReader, sniff_separator
from hiera_video.data.manifest.frame_list import is_folder_list


def count_calls(function: Callable[[], object]) -> int:
    """Return the number of Python and C functions that a call makes."""
    calls = 0

    def count(_: object, event: str, __: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize(
    "part", [",", "::", " ", "\t", ", ", ".mp4,", ".mp4 ", "a ", "1 ", '"', ";"]
)
def test_steps_are_linear_in_the_length_of_a_line(part: str) -> None:
    """I 4.1: a line of 200 commas took 42 s, one of 200 `::` hours."""

    def steps(count: int) -> int:
        line = f"x{part * count}y".strip()
        readers = [ColumnReader(separator, multi) for separator in SEPARATORS for multi in (0, 1)]
        return count_calls(
            lambda: (
                [reader.fits(line) for reader in readers],
                is_folder_list([(1, line)], multi_label=True),
            )
        )

    assert steps(2000) <= 2.1 * steps(1000)


def test_a_hostile_line_is_one_error_or_a_path() -> None:
    """I 4.1"""
    for part in (",", "::", " ", ".mp4"):
        line = f"a{part * 200}b 1"
        assert ColumnReader(" ", multi_label=False).split(line)[1] == ["1"]
    assert sniff_separator(Path("x.csv"), [(1, "a" + "," * 4000 + ".mp4 3")]) == "\t"
