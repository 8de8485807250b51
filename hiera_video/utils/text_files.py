"""Text and JSON files written by users: errors name the file and the line."""

from __future__ import annotations

import json
from pathlib import Path

from hiera_video.errors import ManifestError


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
        raise ManifestError(f"{path}:{line}: holds a NUL character; is this a text file?")
    return text.replace("\r\n", "\n")


def read_json(path: Path) -> object:
    """Read a JSON file.

    Raises:
        ManifestError: The file is not JSON, or is nested too deeply for the parser.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ManifestError(
            f"{path}:{error.lineno}: is not JSON ({error.msg}); create the file again"
        ) from error
    except RecursionError as error:
        raise ManifestError(f"{path}: is nested too deeply to be an annotation file") from error
