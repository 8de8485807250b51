"""Text and JSON files written by users: errors name the file and the line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from hiera_video.errors import ManifestError

BIDIRECTIONAL = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Characters that reverse the text around them, or that end this."""
CONTROL = {
    **{code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))},
    **{code: f"\\u{code:04x}" for code in BIDIRECTIONAL},
}
ESCAPED = re.compile(r"\\u(dc[89a-f][0-9a-f])")
"""An escaped byte of a name that is not UTF-8."""
FORMULA = ("=", "+", "-", "@")
DAMAGED_JSON = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""Errors of reading a JSON file that is missing, damaged, or has values of other types: it may be
nested thousands deep, or contain a number of thousands of digits."""
NUL = "holds a NUL character; is this a text file?"


def shorten(value: object, limit: int = 80) -> str:
    """Return the `repr` of a value for a message, at most `limit` characters of it.

    >>> shorten("a" * 20, limit=10)
    "'aaaaaaaa…"
    """
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is one.

    >>> count_of(1, "video"), count_of(2, "epoch"), count_of(0, "process")
    ('1 video', '2 epochs', '0 processes')
    """
    ending = "es" if noun.endswith(("s", "x")) else "s"
    return f"{number} {noun}{'' if number == 1 else ending}"


def encode_text(text: str) -> bytes:
    """Return UTF-8, with names of files that are not UTF-8 as the bytes that they have."""
    return text.encode(errors="surrogateescape")


def encode_json(text: str) -> bytes:
    r"""Return UTF-8 JSON or HTML, with the bytes of names that are not UTF-8 as `\udcff`."""
    return text.encode(errors="backslashreplace")


def escape_names(text: str) -> str:
    r"""Return text that is UTF-8, with the bytes of names that are not as `\udcff`."""
    return encode_json(text).decode()


def unescape_names(text: str) -> str:
    r"""Return the text that `escape_names` was given, with bytes as `os.fsdecode` returns them."""
    return ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)


def printable(text: str) -> str:
    r"""Return text without control characters, which a terminal would obey, each as `\x1b`.

    >>> print(printable("a\x1b[31m\n\u202e"))
    a\x1b[31m\x0a\u202e
    """
    return text.translate(CONTROL)


def csv_cell(text: str) -> str:
    """Return text as a spreadsheet may show it: no formula, and no control characters.

    >>> csv_cell("=1+1"), csv_cell("a\\nb")
    ("'=1+1", 'a\\nb')
    """
    lines = "\n".join(map(printable, text.split("\n")))
    return f"'{lines}" if text[:1] in FORMULA and text else lines


def csv_field(text: str) -> str:
    """Return text as one field of a csv line that programs read, in quotes if it needs them.

    >>> print(csv_field("-5KQ66"), csv_field("a,b"))
    -5KQ66 "a,b"
    """
    quoted = text.replace('"', '""')
    return f'"{quoted}"' if any(sign in text for sign in ',"\r\n') else text


def is_text(value: object) -> bool:
    """Return True for text that can be written: UTF-8, or the escaped bytes of a file's name."""
    try:
        return isinstance(value, str) and value.encode(errors="surrogateescape") is not None
    except UnicodeEncodeError:
        return False


def read_text(path: Path) -> str:
    """Read a UTF-8 text file; remove a byte order mark and Windows line ends.

    Raises:
        ManifestError: The file is not UTF-8 or contains a NUL character.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")  # Windows programs write a byte order mark
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ManifestError(f"{path}:{line}: is not UTF-8 text; save the file as UTF-8") from error
    if (position := text.find("\0")) >= 0:
        line = text.count("\n", 0, position) + 1
        raise ManifestError(f"{path}:{line}: {NUL}")
    return text.replace("\r\n", "\n")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number, from 1, and the stripped text of each line that is not blank.

    Bytes that are not UTF-8 are escaped as in file names (`surrogateescape`): a list may contain
    names that are not UTF-8.

    Raises:
        ManifestError: A line contains a NUL character.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if "\0" in line:
                raise ManifestError(f"{path}:{number}: {NUL}")
            if text := line.strip():
                yield number, text


def read_json(path: Path) -> object:
    """Read a JSON file.

    Raises:
        ManifestError: The file is not JSON, is nested too deeply, or has an endless number.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ManifestError(
            f"{path}:{error.lineno}: is not JSON ({error.msg}); create the file again"
        ) from error
    except RecursionError as error:
        raise ManifestError(f"{path}: is nested too deeply to be an annotation file") from error
    except ValueError as error:  # a number of thousands of digits
        raise ManifestError(
            f"{path}: contains a number of too many digits; create the file again"
        ) from error
