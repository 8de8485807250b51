"""Atomic, durable file writes: under its name a file is complete and synced to disk, or absent."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hiera_video.utils.text_files import encode_json, encode_text

ESCAPED = (".json", ".jsonl", ".html")
"""Suffixes of files in which names that are not UTF-8 are escaped."""


@contextmanager
def atomic_path(
    path: Path, *, shared: bool = False, replace: bool = True, suffix: str = ".partial"
) -> Iterator[Path]:
    """Yield a temporary path; sync the file and rename it to `path` if the block succeeds.

    The temporary name is hidden: `.name.partial`. A killed process leaves it behind, and the next
    write replaces it.

    Args:
        path: Final path.
        shared: Add the process id to the temporary name, as several processes may write `path` at
            the same time.
        replace: Overwrite an existing file; otherwise keep it and discard the new content.
        suffix: End of the temporary name, for writers that choose a format by it.
    """
    process = f".{os.getpid()}" if shared else ""
    partial = path.with_name(f".{path.name}{process}{suffix}")
    try:
        yield partial
        sync(partial)
        if replace:
            publish(partial, path)
        else:
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(partial)
            partial.unlink()
    except BaseException as error:
        if isinstance(error, OSError) and error.errno and error.filename is None:
            with contextlib.suppress(AttributeError):  # PyAV's errors cannot be changed
                error.filename = str(path)  # a full disk: failed writes do not name their file
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a binary file whose content appears at `path` when the block ends without an error."""
    with atomic_path(path) as partial, partial.open("wb") as file:
        yield file


def write_atomic(
    path: Path, content: str | bytes, *, shared: bool = False, replace: bool = True
) -> None:
    """Write `content` to `path`; the options are those of `atomic_path`.

    Text is written as UTF-8. Names of files that are not UTF-8 are written as their bytes, and
    escaped in JSON and HTML.
    """
    if isinstance(content, str):
        content = encode_json(content) if path.suffix in ESCAPED else encode_text(content)
    with atomic_path(path, shared=shared, replace=replace) as partial:
        partial.write_bytes(content)


def write_output(path: Path, content: bytes) -> None:
    """Write a file of results atomically, and a link, pipe or device (`/dev/stdout`) as it is.

    A file in a folder that allows no new files is written in place too.
    """
    in_place = path.is_symlink() or (
        path.exists() and not (path.is_file() and os.access(path.parent, os.W_OK))
    )
    if in_place:
        path.write_bytes(content)
    else:
        write_atomic(path, content)


def publish(partial: Path, path: Path) -> None:
    """Rename a synced file or folder to `path` and sync the folder that holds it."""
    partial.replace(path)
    with contextlib.suppress(OSError):  # some network disks cannot sync a folder, and need not
        sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
