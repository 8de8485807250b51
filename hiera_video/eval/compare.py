"""Two tests of the same videos, held against each other video by video."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hiera_video.errors import ConfigError
from hiera_video.eval.metrics import bootstrap

CLASSES_SHOWN = 10


def compare(first: str | Path, second: str | Path) -> dict[str, Any]:
    """What changes in top-1 from one `results.json` to the other, over the videos that both could read.

    Returns `videos`, `top1` (both, percent), `difference` with its 95 % bootstrap `interval` over pairs, `only_first` and
    `only_second` (videos that one alone has right), `p_value` (exact McNemar), `classes` (those that moved, by how much)
    and `left_out` (videos that one of the two does not have). `ConfigError` where they are not of the same videos.
    """
    ours, theirs = _answers(first), _answers(second)
    both = sorted(set(ours) & set(theirs))
    if not both:
        raise ConfigError(
            f"{first} and {second}: have no video in common; compare tests of one manifest"
        )
    for key in both:
        if ours[key][0] != theirs[key][0]:
            raise ConfigError(
                f"{first} and {second}: {key[1]} (row {key[0]}) is {ours[key][0]!r} in one and {theirs[key][0]!r} in the "
                "other; compare tests of one manifest"
            )
    right = np.array([[found[key][0] == found[key][1] for key in both] for found in (ours, theirs)])
    change = right[1].astype(np.float64) - right[0]
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    return {
        "videos": len(both),
        "left_out": len(set(ours) ^ set(theirs)),
        "top1": [100 * float(line.mean()) for line in right],
        "difference": 100 * float(change.mean()),
        "interval": [
            100 * end for end in bootstrap(lambda chosen: change[chosen].mean(), len(both))
        ],
        "only_first": only_first,
        "only_second": only_second,
        "p_value": mcnemar(only_first, only_second),
        "classes": _moved([ours[key][0] for key in both], change.tolist()),
    }


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided exact p-value: how often a fair coin divides the videos that one alone has right as unevenly."""
    count, fewer = only_first + only_second, min(only_first, only_second)
    tail, term = 0, 1
    for place in range(fewer + 1):  # whole numbers: no rounding however many videos there are
        tail += term
        term = term * (count - place) // (place + 1)
    return min(1.0, math.exp(math.log(2 * tail) - count * math.log(2)))


def describe(found: dict[str, Any], first: str, second: str) -> str:
    """The comparison in words, for a screen."""
    low, high = found["interval"]
    lines = [
        f"A {found['top1'][0]:.2f}  {first}",
        f"B {found['top1'][1]:.2f}  {second}",
        f"B - A: {found['difference']:+.2f} points of top-1, 95 % from {low:+.2f} to {high:+.2f}, over {found['videos']} videos",
        f"right in A alone {found['only_first']}, in B alone {found['only_second']}: McNemar p = {found['p_value']:.3g}",
    ]
    if found["left_out"]:
        lines.append(
            f"{found['left_out']} videos were read in one of the two tests alone and are left out"
        )
    shown = found["classes"][:CLASSES_SHOWN]
    lines += [f"{item['change']:+7.1f}  {item['name']} ({item['videos']} videos)" for item in shown]
    return "\n".join(lines)


def _answers(results: str | Path) -> dict[tuple[int, str], tuple[str, str]]:
    """(row, file) → (label's name, answer's name), from `predictions.csv` beside `results.json`."""
    path = Path(results)
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if "mAP" in facts:
            raise ConfigError(
                f"{path}: is of several labels a video; top-1, and so --compare, is for one"
            )
        with (path.parent / "predictions.csv").open(encoding="utf-8", newline="") as file:
            return {
                (int(row["row"]), Path(row["path"]).name): (row["label_name"], row["answer_name"])
                for row in csv.DictReader(file)
            }
    except (OSError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: cannot be compared ({type(error).__name__}: {error}); give the results.json that test_net.py wrote, "
            "with its predictions.csv beside it"
        ) from error


def _moved(labels: Sequence[str], change: Sequence[float]) -> list[dict[str, Any]]:
    """Classes whose recall changed, most first; `change` in points."""
    totals: dict[str, list[float]] = {}
    for label, value in zip(labels, change):
        totals.setdefault(label, []).append(value)
    rows: list[dict[str, Any]] = [
        {"name": name, "videos": len(values), "change": 100 * sum(values) / len(values)}
        for name, values in totals.items()
        if sum(values)
    ]
    return sorted(rows, key=lambda row: (-abs(row["change"]), row["name"]))
