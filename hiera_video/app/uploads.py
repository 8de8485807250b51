"""Limits of the page, and the folder of its uploads."""

from __future__ import annotations

import math
import os
import shutil
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hiera_video.errors import ConfigError
from hiera_video.utils.checks import require

EXAMPLES = "examples"
"""Subfolder of the videos that the page offers; all others are of uploads."""
WAITING = 10
"""Uploads of the largest size that may wait for their answer."""


@dataclass(frozen=True, kw_only=True)
class AppLimits:
    """Limits of what the page reads."""

    max_mb: float = 100.0
    """Largest upload, in 10⁶ bytes."""
    max_seconds: float = 60.0
    """Longest video."""
    read_seconds: float = 60.0
    """A decoder that takes longer for a video is killed."""
    keep_seconds: float = 600.0
    """Uploads that no question followed are deleted after this time."""

    def __post_init__(self) -> None:
        for name, value in (("--max-mb", self.max_mb), ("--max-seconds", self.max_seconds)):
            require(0 < value < math.inf, f"{name} {value:g}: must be above 0 and finite")

    @property
    def max_bytes(self) -> int:
        """Largest upload in bytes."""
        return int(self.max_mb * 1e6)


class Uploads:
    """A folder with a subfolder for each upload, and one for the examples.

    Args:
        folder: An existing folder that nobody else writes to.
        limits: Limits of the page.
        clock: Returns the time in seconds; for tests.
    """

    def __init__(
        self, folder: Path, limits: AppLimits, clock: Callable[[], float] = time.time
    ) -> None:
        self.folder = folder.resolve()
        self.limits = limits
        self._clock = clock

    def add_example(self, video: Path, name: str) -> Path:
        """Copy a video among the examples and return the copy."""
        target = self.folder / EXAMPLES / f"{name}{video.suffix.lower()}"
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(video, target)
        return target

    def check(self, path: str) -> Path:
        """Return the path of an upload or example.

        Raises:
            ConfigError: It is no regular file of this folder.
        """
        try:
            found = Path(path).resolve(strict=True)
            is_file = stat.S_ISREG(os.lstat(path).st_mode)
        except (OSError, ValueError) as error:
            raise ConfigError("no such upload; it was deleted: upload the video again") from error
        require(
            is_file and found.is_relative_to(self.folder) and found.parent != self.folder,
            "not an upload; upload the video itself",
        )
        return found

    def remove(self, path: Path) -> None:
        """Delete an upload; an example, and what lies elsewhere, stays."""
        if path.parent.parent == self.folder and path.parent.name != EXAMPLES:
            shutil.rmtree(path.parent, ignore_errors=True)

    def sweep(self) -> None:
        """Delete the uploads that nobody asked about in time."""
        for entry in self.folder.iterdir():
            if entry.name == EXAMPLES:
                continue
            try:
                old = self._clock() - entry.lstat().st_mtime > self.limits.keep_seconds
            except OSError:  # answered and deleted meanwhile
                continue
            if old and entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            elif old:  # an upload that broke off
                entry.unlink(missing_ok=True)

    def are_full(self) -> bool:
        """Return True if the uploads that wait take more space than they may."""
        size = 0
        for parent, folders, names in os.walk(self.folder):
            if EXAMPLES in folders:
                folders.remove(EXAMPLES)
            for name in names:
                with suppress(OSError):  # answered and deleted meanwhile
                    size += Path(parent, name).lstat().st_size
        return size > WAITING * self.limits.max_bytes
