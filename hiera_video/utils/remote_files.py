"""Bytes of files that lie elsewhere, by fsspec: `s3://`, `gs://`, `https://`, whatever has its file system installed."""

from __future__ import annotations

import time
from typing import Any

from hiera_video.errors import ConfigError

ATTEMPTS = 3
PAUSE_SECONDS = 1.0
"""After the first failure; twice as long after the second. A storage that stumbles once must not change the data."""


def is_url(name: str) -> bool:
    return "://" in name


def fetch(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """Bytes `start` to `end` of the file, fewer where it ends before. `FileNotFoundError`, `PermissionError`, or another
    `OSError` where the storage fails again and again; `ConfigError` where no file system for such URLs is installed."""
    system, path = _file_system(url)
    for attempt in range(ATTEMPTS):
        try:
            content: bytes = system.cat_file(path, start=start, end=end)
            return content
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # each file system has errors of its own
            if attempt == ATTEMPTS - 1:
                raise OSError(f"{type(error).__name__}: {error}") from error
            time.sleep(PAUSE_SECONDS * 2**attempt)
    raise AssertionError("unreachable")


def _file_system(url: str) -> tuple[Any, str]:
    """Asked for anew each time: fsspec keeps one a process, and those of the parent do not work in a forked worker."""
    try:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{url}: no file system for such URLs is installed ({error}); install it, or download the files"
        ) from error
    return system, path
