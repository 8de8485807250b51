"""Remote files through fsspec: `s3://`, `gs://`, `https://` and every other installed protocol."""

from __future__ import annotations

import os
import time
from typing import Any

from hiera_video.errors import ConfigError

ATTEMPTS = 3
PAUSE_SECONDS = 1.0
"""Pause after the first failure, doubled after each further one: a transient storage error must not
change the data."""


def is_url(name: str | os.PathLike[str]) -> bool:
    """Return True for a URL; a path object is none, as it holds one slash of two.

    Raises:
        ConfigError: `name` is neither text nor a path.
    """
    path = os.fspath(name) if isinstance(name, str | os.PathLike) else None
    if not isinstance(path, str):
        kind = "None" if name is None else f"of type {type(name).__name__}"
        raise ConfigError(f"a file or folder is {kind}; give its path, or a URL, as text")
    return "://" in path


def fetch(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """Read bytes `start` to `end` (exclusive) of a remote file; retry transient errors.

    Args:
        url: Address of the file.
        start: First byte; None: the beginning.
        end: End of the range; None: the end of the file.

    Returns:
        The bytes; fewer than requested if the file ends earlier.

    Raises:
        FileNotFoundError: There is no such file.
        PermissionError: Access was denied.
        OSError: The storage failed `ATTEMPTS` times.
        ConfigError: No file system for this protocol is installed.
    """
    system, path = _file_system(url)
    for attempt in range(ATTEMPTS):
        try:
            content: bytes = system.cat_file(path, start=start, end=end)
            return content
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # each file system has exception types of its own
            if attempt == ATTEMPTS - 1:
                raise OSError(f"{type(error).__name__}: {error}") from error
            time.sleep(PAUSE_SECONDS * 2**attempt)
    raise AssertionError("unreachable")


def _file_system(url: str) -> tuple[Any, str]:
    # looked up in each call: fsspec caches it per process, and a parent's fails in a forked worker
    try:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{url}: no file system for such URLs is installed ({error}); install it, or download "
            "the files"
        ) from error
    return system, path
