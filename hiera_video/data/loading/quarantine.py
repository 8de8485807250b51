"""Files that hung or crashed a loader's worker: passed over from then on, and written down in `quarantine.jsonl`.

    {"path": "/data/k400/train/x.mp4", "reason": "hung", "time": "2026-11-22T19:40:00+00:00", "message": "…"}

The file lies in the run's folder and is read again when the run goes on, so that a restart sees the same data. Whoever
has repaired a video removes its line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hiera_video.video.reader import unreadable

OnOpen = Callable[[str], None]
"""Called with a path before the file is opened; raises `DecodeError` if it is quarantined."""
FILE_NAME = "quarantine.jsonl"


@dataclass(frozen=True, kw_only=True)
class Watch:
    """How a loader's workers are watched."""

    deadline_seconds: float = 60.0
    """A worker that is busy with one video for longer is killed and started again, and the video passed over."""
    quarantine: str | None = None
    """File that such videos are written to, and known from at the next start; unset: this process remembers alone."""


class Quarantine:
    """Paths to pass over, each with its reason."""

    def __init__(self, file: str | None = None) -> None:
        self._file = Path(file) if file is not None else None
        self.reasons: dict[str, str] = dict(_read(self._file)) if self._file is not None else {}

    def add(self, path: str, reason: str, message: str) -> None:
        """Pass over `path` from now on. One line, appended at once: processes of one run may share the file."""
        self.reasons[path] = reason
        if self._file is None:
            return
        entry = {
            "path": path,
            "reason": reason,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "message": message,
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def check(self, path: str) -> None:
        """`DecodeError` if `path` is to be passed over."""
        refuse(path, self.reasons)


def refuse(path: str, reasons: dict[str, str]) -> None:
    """`DecodeError` if `path` is among the quarantined ones."""
    if path in reasons:
        words = {
            "hung": "kept a decoder busy beyond data.deadline_seconds",
            "crashed": "crashed a decoder twice",
        }
        raise unreadable(
            path,
            reasons[path],
            f"{words[reasons[path]]}; make it again, and remove its line in {FILE_NAME}",
        )


def _read(file: Path) -> list[tuple[str, str]]:
    """The entries; a line that a kill cut short is left out."""
    found = []
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            entry = json.loads(line)
            found.append(
                (str(entry["path"]), "crashed" if entry["reason"] == "crashed" else "hung")
            )
        except (ValueError, KeyError, TypeError):
            continue
    return found
