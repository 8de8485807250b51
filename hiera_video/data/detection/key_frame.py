"""Key frames: moments of videos with boxes, whose actions are to be recognised. No torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.errors import ManifestError

Boxes = NDArray[np.float32]
"""float32 [N, 4]: x1, y1, x2, y2, from 0 (left, top) to 1 (right, bottom)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class KeyFrame(Record):
    """One moment of a video and the boxes in its frame.

    `label` has the classes of all boxes; `path` and `row` are those of any record.
    """

    second: float
    """Time of the key frame as the list states it."""
    video: str
    """Name of the video as the list states it."""
    boxes: Boxes
    """The boxes, maybe none."""
    labels: tuple[tuple[int, ...], ...]
    """Class indices of each box; () for a box without an action."""
    persons: tuple[str, ...] = ()
    """Person id of each box, as text; empty where the list has none."""
    scores: NDArray[np.float32] | None = None
    """Detector's score of each box; None for boxes that people drew."""
    where: str = ""
    """Position of its first line, `file:line`, for messages."""

    @property
    def part(self) -> str:
        """Text that identifies the key frame and its boxes within the video."""
        digest = hashlib.sha256(np.ascontiguousarray(self.boxes).tobytes()).hexdigest()[:16]
        return f"{self.second} {digest}"

    @property
    def label_text(self) -> str:
        """Text that identifies the labels."""
        return str(self.labels)


@dataclass(frozen=True, kw_only=True)
class BoxManifest(Manifest):
    """The key frames of a list of boxes, in the order of their first lines."""

    records: tuple[KeyFrame, ...]
    class_ids: tuple[int, ...]
    """Id of each class in lists."""

    def require_labels(self) -> None:
        """Raise `ManifestError` if no box has an action; some may have none."""
        if not self.labels_present:
            raise ManifestError(
                f"{self.source}: no box has an action; write video,second,x1,y1,x2,y2,action lines"
            )

    @property
    def num_boxes(self) -> int:
        """Number of boxes in all key frames."""
        return sum(len(record.boxes) for record in self.records)
