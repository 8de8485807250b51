"""Paired comparison of two tests of the same videos: `hiera-video test --compare`."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hiera_video.errors import ConfigError
from hiera_video.eval.metrics import bootstrap
from hiera_video.utils.text_files import DAMAGED_JSON, count_of

MAX_CLASSES = 10
GIVE = "give the results.json that hiera-video test wrote, with its predictions.csv beside it"


@dataclass(frozen=True, kw_only=True)
class ClassChange:
    """A class whose recall differs between the two tests."""

    name: str
    videos: int
    change: float
    """Recall in the second test minus that in the first, in percentage points."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Change of top-1 accuracy from a first to a second test, over the videos that both read."""

    videos: int
    left_out: int
    """Videos that only one of the two tests read."""
    top1: tuple[float, float]
    """Percent."""
    top1_intervals: tuple[tuple[float, float], tuple[float, float]]
    """95 % bootstrap interval of each."""
    difference: float
    """Second minus first, in percentage points."""
    interval: tuple[float, float]
    """95 % bootstrap interval of the difference, over pairs."""
    only_first: int
    """Videos that only the first test classified correctly."""
    only_second: int
    p_value: float
    """Of the exact McNemar test."""
    classes: list[ClassChange]
    """Largest change first."""

    def describe(self, first: str, second: str) -> str:
        """Return the comparison as text; `first` and `second` name the two tests."""
        low, high = self.interval
        tests = zip("AB", self.top1, self.top1_intervals, (first, second))
        lines = [
            *(
                f"{i} {top1:.2f} ({ends[0]:.2f} to {ends[1]:.2f})  {n}"
                for i, top1, ends, n in tests
            ),
            f"B - A: {self.difference:+.2f} points of top-1, "
            f"95 % interval {low:+.2f} to {high:+.2f}, over {count_of(self.videos, 'video')}",
            f"correct only in A: {self.only_first}, only in B: {self.only_second}; "
            f"McNemar p = {self.p_value:.3g}",
        ]
        if self.left_out:
            left_out = count_of(self.left_out, "video")
            lines.append(f"left out: {left_out} that only one of the tests could read")
        lines += [
            f"{item.change:+7.1f}  {item.name} ({count_of(item.videos, 'video')})"
            for item in self.classes[:MAX_CLASSES]
        ]
        return "\n".join(lines)


def compare(first: str | Path, second: str | Path) -> Comparison:
    """Compare the top-1 accuracy of two tests, video by video.

    Args:
        first: A `results.json`, with its `predictions.csv` beside it.
        second: Another one, for the same videos.

    Raises:
        ConfigError: A file cannot be read, is of a multi-label test, or is of other videos.
    """
    a, b = _read_predictions(first), _read_predictions(second)
    videos = sorted(set(a) & set(b))
    if not videos:
        raise ConfigError(
            f"{first} and {second}: have no video in common; compare tests of one manifest"
        )
    for video in videos:
        if a[video][0] != b[video][0]:
            row, file = video
            raise ConfigError(
                f"{first} and {second}: {file} (row {row}) has label {a[video][0]!r} in one and "
                f"{b[video][0]!r} in the other; compare tests of one manifest"
            )
    labels = [a[video][0] for video in videos]
    correct = np.array([[test[video][0] == test[video][1] for video in videos] for test in (a, b)])
    change = correct[1].astype(np.float64) - correct[0]
    only_first, only_second = int((change < 0).sum()), int((change > 0).sum())
    low, high = bootstrap(lambda sample: change[sample].mean(), len(videos))
    return Comparison(
        videos=len(videos),
        left_out=len(set(a) ^ set(b)),
        top1=(100 * float(correct[0].mean()), 100 * float(correct[1].mean())),
        top1_intervals=(_interval(correct[0]), _interval(correct[1])),
        difference=100 * float(change.mean()),
        interval=(100 * low, 100 * high),
        only_first=only_first,
        only_second=only_second,
        p_value=mcnemar(only_first, only_second),
        classes=_class_changes(labels, change.tolist()),
    )


def _interval(correct: NDArray[np.bool_]) -> tuple[float, float]:
    low, high = bootstrap(lambda sample: correct[sample].mean(), len(correct))
    return 100 * low, 100 * high


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the p-value of the two-sided exact McNemar test.

    Args:
        only_first: Videos that only the first model classifies correctly.
        only_second: Videos that only the second one does.
    """
    count, fewer = only_first + only_second, min(only_first, only_second)
    tail, term = 0, 1
    for k in range(fewer + 1):  # integers, so nothing is rounded however many videos there are
        tail += term
        term = term * (count - k) // (k + 1)
    return min(1.0, math.exp(math.log(2 * tail) - count * math.log(2)))


def _read_predictions(results: str | Path) -> dict[tuple[int, str], tuple[str, str]]:
    """Read (row, file name) → (name of the label, name of the prediction)."""
    path = Path(results)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        _require_top1(path, content)
        with (path.parent / "predictions.csv").open(encoding="utf-8", newline="") as file:
            predictions = {
                (int(row["row"]), Path(row["path"]).name): (row["label_name"], row["answer_name"])
                for row in csv.DictReader(file)
            }
    except ConfigError:
        raise
    except (*DAMAGED_JSON, csv.Error) as error:
        raise ConfigError(
            f"{path}: cannot be compared ({type(error).__name__}: {error}); {GIVE}"
        ) from error
    return predictions


def _require_top1(path: Path, results: object) -> None:
    """Raise `ConfigError` unless the content of a file is the result of a test with top-1."""
    keys = results if isinstance(results, dict) else {}
    for key, kind in (("scored_boxes", "boxes"), ("overlaps", "segments")):
        if key in keys:
            raise ConfigError(
                f"{path}: is the result of a test of {kind}; --compare compares the top-1 of "
                "tests of classifiers only"
            )
    if "mAP" in keys:
        raise ConfigError(
            f"{path}: has several labels a video; --compare needs top-1, which takes one label"
        )
    if "top1" not in keys:
        raise ConfigError(f"{path}: cannot be compared (it is not the result of a test); {GIVE}")


def _class_changes(labels: Sequence[str], change: Sequence[float]) -> list[ClassChange]:
    changes: dict[str, list[float]] = {}
    for label, value in zip(labels, change):
        changes.setdefault(label, []).append(value)
    rows = [
        ClassChange(name=name, videos=len(values), change=100 * sum(values) / len(values))
        for name, values in changes.items()
        if sum(values)
    ]
    return sorted(rows, key=lambda row: (-abs(row.change), row.name))
