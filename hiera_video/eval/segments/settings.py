"""How segments are found in a video, and the file beside a run that keeps the chosen thresholds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hiera_video.errors import ConfigError, ManifestError
from hiera_video.eval.segments.find import SegmentRule
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.checks import require
from hiera_video.utils.text_files import read_json

FILE_NAME = "segment_thresholds.json"
WINDOWS_PER_STEP = 0.25
"""Default step, in windows."""
SMOOTH, SHORTEST = 0.5, 0.5
"""Default smoothing and minimum length of a segment, in windows."""
MAX_OVERLAP = 0.5
"""Overlap that two segments of a model with one label a video may have."""


@dataclass(frozen=True, kw_only=True)
class SegmentSettings:
    """Windows, smoothing, thresholds and minimum length of segments."""

    window: float | None = None
    """Length of a window in seconds; None: the length of the model's clip."""
    step: float | None = None
    """Seconds from the start of a window to the next; None: a quarter of a window."""
    smooth: float | None = None
    """Seconds over which scores are averaged; None: half a window."""
    min_seconds: float | None = None
    """Minimum length of a segment; None: half a window."""
    threshold: float = 0.5
    """Score that a segment reaches somewhere, for classes that are not in `thresholds`."""
    keep: float = 0.5
    """A segment lasts while the score is at least this share of the threshold."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """Threshold by class name."""

    def __post_init__(self) -> None:
        for name, least in (("window", 0), ("step", 0), ("smooth", -1), ("min_seconds", -1)):
            value = getattr(self, name)
            rule = "above 0" if least == 0 else "0 or more"
            require(
                value is None or (least < value < math.inf and value >= 0),
                f"--{name.replace('_', '-')} {value}: must be seconds, {rule}",
            )
        for value in (self.threshold, *self.thresholds.values()):
            require(0 < value <= 1, f"--threshold {value}: must be above 0 and at most 1")
        require(0 < self.keep <= 1, f"keep={self.keep}: must be above 0 and at most 1")

    def rule(self, names: Sequence[str], *, window: float, multi_label: bool) -> SegmentRule:
        """Return the rule for a model's classes.

        Args:
            names: Name of each class.
            window: Length of the windows in seconds.
            multi_label: Segments of different classes may overlap.
        """
        return SegmentRule(
            thresholds=tuple(self.thresholds.get(name, self.threshold) for name in names),
            keep=self.keep,
            min_seconds=self.shortest(window),
            max_overlap=None if multi_label else MAX_OVERLAP,
        )

    def smoothing(self, window: float) -> float:
        """Return the seconds over which scores are averaged."""
        return SMOOTH * window if self.smooth is None else self.smooth

    def shortest(self, window: float) -> float:
        """Return the minimum length of a segment in seconds."""
        return SHORTEST * window if self.min_seconds is None else self.min_seconds

    def override(self, **values: float | None) -> SegmentSettings:
        """Return the settings with the values that are not None.

        A threshold then counts for every class.
        """
        given: dict[str, Any] = {name: v for name, v in values.items() if v is not None}
        if "threshold" in given:
            given["thresholds"] = {}
        return replace(self, **given)


def write_settings(folder: Path, settings: SegmentSettings, facts: Mapping[str, Any]) -> Path:
    """Write the settings, and facts about their choice, into the folder of a run."""
    path = folder / FILE_NAME
    content = {**asdict(settings), "chosen": facts}
    write_atomic(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


def read_settings(folder: Path) -> SegmentSettings | None:
    """Read the settings that were chosen for a run; None if there are none.

    Raises:
        ConfigError: The file is damaged.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        content = read_json(path)
        assert isinstance(content, dict)
        content.pop("chosen", None)
        return SegmentSettings(**content)
    except (ManifestError, ConfigError, AssertionError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: is damaged ({error or 'not an object'}); choose the thresholds again with "
            "--choose-thresholds, or delete the file"
        ) from error
