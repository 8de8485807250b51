"""The `detect` section of the configuration. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hiera_video.utils.checks import require


@dataclass(frozen=True, kw_only=True)
class DetectConfig:
    """The `detect` section: boxes and classes of action detection (`train.task=detect`)."""

    label_map: str | None = None
    """Classes of the lists: AVA's label map (`.pbtxt`), or names in index order (`.txt`, `.json`).
    Unset: the file beside the list."""
    eval_label_map: str | None = None
    """Classes that count in mAP, by name, in the same forms (AVA: the map of 60 of its 80
    classes). Unset: all."""
    excluded: str | None = None
    """File of `video,second` lines whose key frames are left out of all lists."""
    start_seconds: float = 0.0
    """Second of a list at which its videos start: 900 for AVA, whose videos are cut from there."""
    train_boxes: str | None = None
    """List of a person detector's boxes with actions and scores, for training besides the boxes of
    `data.train` (AVA: those that overlap the ground truth by 0.9)."""
    boxes: str | None = None
    """List of a person detector's boxes, which tests and validation score. Unset: they score the
    boxes of the labelled list."""
    min_score: float = 0.8
    """Lowest score of a detector's box that is used."""

    def __post_init__(self) -> None:
        require(
            math.isfinite(self.start_seconds),
            f"detect.start_seconds={self.start_seconds}: must be a number",
        )
        require(0 <= self.min_score <= 1, f"detect.min_score={self.min_score}: must be in [0, 1]")
