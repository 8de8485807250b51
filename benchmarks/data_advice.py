"""Turn the measurements of `data_stages.py` into advice."""

from __future__ import annotations

import math
from dataclasses import dataclass

READING = ("open", "decode", "convert")
MIN_GAIN = 1.1
"""Smaller gains are noise and not recommended."""
KEEPS_UP = 0.02
"""Share of the time that a model may wait before the loader counts as too slow."""


@dataclass(frozen=True, kw_only=True)
class LoadingTimes:
    """Measurements of a loader."""

    milliseconds: dict[str, float]
    """Time of each stage per clip, in one process."""
    clips_per_second: dict[int, float]
    """Throughput by number of workers; 0: in the main process."""
    waits: dict[int, float]
    """Share of its time that a model of `demand` waits, by number of workers; empty without one."""
    demand: float | None
    """Clips per second that the model takes."""
    cores: int
    reencoded: float | None
    """Time of reading re-encoded videos, as a share of the time now; None: not measured."""
    on_device: float | None
    """Milliseconds of a clip with `augment.device=model`, without the device's part; None: it is
    set already."""


def advice(times: LoadingTimes) -> list[str]:
    """Return one sentence for each recommendation, the largest gain first."""
    stages, whole = times.milliseconds, sum(times.milliseconds.values())
    reading = sum(stages[name] for name in READING)
    largest = max(
        (reading, "decode"),
        (stages["augment"], "augment"),
        (stages["crop"] + stages["collate"], "crop"),
    )
    share = f"{largest[0] / whole:.0%} of a clip's time"
    words = []
    if largest[1] == "decode":
        words.append(f"decode-bound: reading takes {share}; {_reencoding(times, reading, whole)}")
    elif largest[1] == "augment":
        words.append(
            f"augment-bound: RandAugment and colour jitter take {share}; only more data.workers "
            "help"
        )
    else:
        words.append(f"crop-bound: crop, resize, normalise, erase and collate take {share}")
    if times.on_device is not None and whole / times.on_device >= MIN_GAIN:
        words.append(
            "a run on a GPU crops, flips, normalises and erases there (augment.device=auto): "
            f"workers ×{whole / times.on_device:.1f}"
        )
    return [*words, *_workers(times)]


def _reencoding(times: LoadingTimes, reading: float, whole: float) -> str:
    if times.reencoded is None:
        return "fewer pixels or more data.workers help"
    gain = 1 / times.reencoded
    if gain < MIN_GAIN:
        return f"re-encoding would not help (×{gain:.1f}); raise data.workers instead"
    rest = whole - reading * (1 - times.reencoded)
    return (
        "re-encode with keyframe interval 32 (hiera-video prepare folder --reencode): "
        f"reading ×{gain:.1f}, whole clips ×{whole / rest:.1f}"
    )


def _workers(times: LoadingTimes) -> list[str]:
    rates = times.clips_per_second
    best = max(rates, key=lambda number: rates[number])
    if times.demand is None:
        return [
            f"throughput is highest with data.workers={best}: {rates[best]:.1f} clips a second on "
            f"{times.cores} cores; compare it with your model's by --demand CLIPS_A_SECOND"
        ]
    enough = [number for number, wait in sorted(times.waits.items()) if wait <= KEEPS_UP]
    if enough:
        return [
            f"the loader keeps up: with data.workers={enough[0]} a model of {times.demand:g} clips "
            f"a second waits {times.waits[enough[0]]:.1%} of its time"
        ]
    each = max(rate / max(number, 1) for number, rate in rates.items())
    return [
        f"the loader is too slow: a model of {times.demand:g} clips a second waits "
        f"{times.waits[best]:.0%} of its time with data.workers={best}; set about "
        f"data.workers={math.ceil(times.demand / each)}, with a core for each ({times.cores} here)"
    ]
