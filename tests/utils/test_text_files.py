"""Text files: names that are not UTF-8, control characters, and cells of spreadsheets."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hiera_video.errors import ManifestError
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.text_files import (
    csv_cell,
    escape_names,
    is_text,
    printable,
    read_json,
    read_lines,
    unescape_names,
)

NAME = os.fsdecode(b"caf\xe9")


def test_names_that_are_not_utf_8_are_written(tmp_path: Path) -> None:
    """I 4.3: as their bytes, and escaped where a file must be UTF-8."""
    write_atomic(tmp_path / "a.csv", f"{NAME} 1\n")
    assert (tmp_path / "a.csv").read_bytes() == b"caf\xe9 1\n"
    assert list(read_lines(tmp_path / "a.csv")) == [(1, f"{NAME} 1")]
    write_atomic(tmp_path / "a.json", json.dumps([NAME, "é"], ensure_ascii=False))
    assert (tmp_path / "a.json").read_bytes() == b'["caf\\udce9", "\xc3\xa9"]'
    assert read_json(tmp_path / "a.json") == [NAME, "é"]
    assert escape_names(NAME) == "caf\\udce9"
    assert is_text(NAME) and not is_text("\ud800") and not is_text(3)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-2", "'-2"),
        ("+2", "'+2"),
        ("a=b", "a=b"),
        ("", ""),
        ("\x1b[31mred\x07\x9b", "\\x1b[31mred\\x07\\x9b"),
        ("a\nb", "a\nb"),
        ("a\rb", "a\\x0db"),
    ],
)
def test_cells_of_a_spreadsheet(text: str, cell: str) -> None:
    """I 4.10"""
    assert csv_cell(text) == cell


def test_a_terminal_shows_control_characters() -> None:
    """I 4.10"""
    assert printable("a\x1b]0;title\x07\nb é") == "a\\x1b]0;title\\x07\\x0ab é"


def test_a_terminal_shows_characters_that_reverse_text() -> None:
    for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A)):
        assert printable(f"a{chr(code)}b") == f"a\\u{code:04x}b"
    assert printable("فتح الباب\u200f \u2030") == "فتح الباب\u200f \u2030"  # a name, a mark, a sign


def test_endless_numbers_and_deep_json(tmp_path: Path) -> None:
    """I 4.2"""
    path = tmp_path / "a.json"
    path.write_text("9" * 5000)
    with pytest.raises(ManifestError, match=r"a.json: contains a number of too many digits; crea"):
        read_json(path)
    path.write_text("[" * 100_000)
    with pytest.raises(ManifestError, match=r"a.json: is nested too deeply"):
        read_json(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ManifestError, match=r"a.json:1: is not UTF-8 text"):
        read_json(path)


def test_escaped_names_are_restored() -> None:
    for name in ("a\udcff\udc80.mp4", "plain ü.mp4"):
        assert unescape_names(escape_names(name)) == name
    assert escape_names("a\udcff.mp4") == r"a\udcff.mp4"
