"""Text and JSON that users wrote, with errors that name file and line."""

from __future__ import annotations

import json
from pathlib import Path

from hiera_video.errors import ManifestError


def read_text(path: Path) -> str:
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")  # Windows programs put a mark before the first path
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ManifestError(f"{path}:{line}: is not UTF-8 text; save the file as UTF-8") from error
    if (position := text.find("\0")) >= 0:
        line = text.count("\n", 0, position) + 1
        raise ManifestError(f"{path}:{line}: holds a NUL character; is this a text file?")
    return text.replace("\r\n", "\n")


def read_json(path: Path) -> object:
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ManifestError(
            f"{path}:{error.lineno}: is not JSON ({error.msg}); make the file anew"
        ) from error
    except RecursionError as error:
        raise ManifestError(f"{path}: is nested too deeply to be an annotation file") from error
