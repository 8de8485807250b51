"""Files that hung or crashed a worker: skipped from then on, and listed in `quarantine.jsonl`.

    {"path": "/data/x.mp4", "reason": "hung", "time": "2026-11-22T19:40:00+00:00", "message": "…"}

The list lies in the run's folder and is read when the run resumes, so that a resumed run skips the
same videos. After repairing a video, remove its line.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hiera_video.utils.text_files import DAMAGED_JSON
from hiera_video.video.reader import unreadable

logger = logging.getLogger(__name__)
OnOpen = Callable[[str], None]
"""Called with a path before the file is opened; raises `DecodeError` if it is quarantined."""
FILE_NAME = "quarantine.jsonl"
EXPLANATIONS = {
    "hung": "kept a decoder busy beyond data.deadline_seconds",
    "crashed": "crashed a decoder twice",
}
"""Reasons for quarantine, in words."""


@dataclass(frozen=True, kw_only=True)
class QuarantinePolicy:
    """When a file is quarantined, and where that is recorded."""

    deadline_seconds: float = 60.0
    """A worker that is busy with one file for longer is killed, and the file is quarantined."""
    file: str | None = None
    """List of quarantined files, read at the start and appended to; None keeps it in memory."""


class Quarantine:
    """The quarantined paths, each with its reason."""

    def __init__(self, file: str | None = None) -> None:
        self._file = Path(file) if file is not None else None
        self.reasons: dict[str, str] = dict(_read(self._file)) if self._file is not None else {}

    def add(self, path: str, reason: str, message: str) -> None:
        """Quarantine `path`. The line is appended at once: ranks of one run may share the file."""
        self.reasons[path] = reason
        if self._file is None:
            return
        entry = {
            "path": path,
            "reason": reason,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "message": message,
        }
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a") as file:
                # a blank line is skipped; a line that a kill left incomplete must end
                file.write("\n" * self._is_incomplete() + json.dumps(entry) + "\n")
        except OSError as error:  # this run skips the video all the same
            logger.warning("%s: cannot be written (%s)", self._file, error.strerror)

    def _is_incomplete(self) -> bool:
        with Path(str(self._file)).open("rb") as file:
            return file.seek(0, 2) > 0 and file.seek(-1, 2) >= 0 and file.read() != b"\n"


def raise_if_quarantined(path: str, reasons: Mapping[str, str]) -> None:
    """Raise `DecodeError` if `path` has an entry in `reasons` (path → reason)."""
    if path in reasons:
        reason = reasons[path]
        raise unreadable(
            path,
            reason,
            f"{EXPLANATIONS[reason]}; repair the file, and remove its line from {FILE_NAME}",
        )


def _read(file: Path) -> list[tuple[str, str]]:
    """Return the entries of `file`, skipping a line that a kill left incomplete."""
    found = []
    for line in file.read_text(errors="replace").splitlines() if file.is_file() else []:
        try:
            entry = json.loads(line)
            found.append(
                (str(entry["path"]), "crashed" if entry["reason"] == "crashed" else "hung")
            )
        except DAMAGED_JSON:
            continue
    return found
