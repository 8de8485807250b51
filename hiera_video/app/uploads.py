"""Limits of the page, and the folder of its uploads."""

from __future__ import annotations

import math
import os
import shutil
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

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

    Uploads of the same bytes share a subfolder, which gradio names after them: it is deleted with
    the last answer.

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
        self._lock = Lock()
        self._waiting = Counter[Path]()
        """Uploads that wait for their answer, by subfolder."""
        self._arriving = 0
        """Requests of which it is not known yet which subfolder they write."""
        self._answered = set[Path]()
        """Subfolders to delete, unless an arriving upload is one of them."""

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

    @contextmanager
    def arriving(self) -> Iterator[Callable[[Sequence[str]], None]]:
        """Delete no upload while the block runs; it calls what is yielded with the new paths."""
        with self._lock:
            self._arriving += 1
        try:
            yield self._expect
        finally:
            with self._lock:
                self._arriving -= 1
                self._delete_answered()

    def remove(self, path: Path) -> None:
        """Delete an answered upload, unless another of the same bytes waits for its answer.

        An example, and what lies elsewhere, stays.
        """
        folder = path.parent
        if folder.parent != self.folder or folder.name == EXAMPLES:
            return
        with self._lock:
            self._waiting[folder] = max(self._waiting[folder] - 1, 0)
            self._answered.add(folder)
            self._delete_answered()

    def _expect(self, paths: Sequence[str]) -> None:
        with self._lock:
            self._waiting.update(Path(path).resolve().parent for path in paths)

    def _delete_answered(self) -> None:
        if self._arriving:
            return
        for folder in self._answered:
            if not self._waiting[folder]:
                del self._waiting[folder]
                shutil.rmtree(folder, ignore_errors=True)
        self._answered.clear()

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
                with self._lock:
                    del self._waiting[entry]
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
