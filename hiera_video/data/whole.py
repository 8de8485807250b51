"""Files that appear under their name when they are complete and on the disk, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to. One that a kill left half-written lies hidden beside it, and is written over next time."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        settle(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def settle(partial: Path, path: Path) -> None:
    """Give a file that is on the disk its name, and bring the name to the disk."""
    partial.replace(path)
    with suppress(OSError):  # some network disks cannot, and need not
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_whole(path: Path, content: str | bytes) -> None:
    """`content`, text as UTF-8, in such a file."""
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
