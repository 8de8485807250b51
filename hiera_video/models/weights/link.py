"""Reads through a link that a training beside this process may move."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hiera_video.errors import CheckpointError

Result = TypeVar("Result")


def read_through_link(folder: Path, read: Callable[[Path], Result]) -> Result:
    """Return `read` of the folder that a link points to, or of `folder` if it is no link.

    A training moves `last` with every checkpoint, and deletes older ones. The link is followed
    once, so that all files come from one checkpoint; if that fails and the link has moved
    meanwhile, the newer checkpoint is read.
    """
    found = folder.resolve()
    try:
        return read(found)
    except (CheckpointError, OSError):
        if (newer := folder.resolve()) == found:
            raise
        return read(newer)
