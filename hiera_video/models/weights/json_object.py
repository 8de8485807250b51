"""JSON files beside weights, which others may have written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hiera_video.errors import CheckpointError


def read_object(path: Path) -> Mapping[str, Any]:
    """Read a JSON object; return an empty one if there is no such file.

    Raises:
        CheckpointError: The file is not JSON, or contains something else.
    """
    if not path.is_file():
        return {}
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is not valid JSON ({error})") from error
    if not isinstance(contents, dict):
        raise CheckpointError(f"{path}: contains a {type(contents).__name__} instead of an object")
    return contents


def as_object(value: Any) -> Mapping[str, Any]:
    """Return `value` if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}
