"""What to do about the numbers that `data_stages.py` finds, in words. Arithmetic alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

READING = ("open", "decode", "convert")
WORTH_SAYING = 1.1
"""A gain below this is noise, and not recommended."""
KEEPS_UP = 0.02
"""Share of its time that a model may wait before the loader counts as too slow."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was measured."""

    milliseconds: dict[str, float]
    """Of each stage, a clip, in one process."""
    clips_per_second: dict[int, float]
    """By number of workers; 0: in the main process."""
    waits: dict[int, float]
    """The same, share of its time that a model of `demand` waits; empty without one."""
    demand: float | None
    """Clips a second that the model takes."""
    cores: int
    reencoded: float | None
    """Time of reading from copies by the recipe, as a share of what it takes now; None: not tried."""
    on_device: float | None
    """Milliseconds of a whole clip with `augment.device=model`, its device's part left out; None: it is so already."""


def advice(found: Found) -> list[str]:
    """One sentence for each thing worth knowing, the largest first."""
    stages, whole = found.milliseconds, sum(found.milliseconds.values())
    reading = sum(stages[name] for name in READING)
    largest = max(
        (reading, "decode"),
        (stages["augment"], "augment"),
        (stages["crop"] + stages["collate"], "crop"),
    )
    share = f"{largest[0] / whole:.0%} of a clip's time"
    words = []
    if largest[1] == "decode":
        words.append(f"decode-bound: reading takes {share}; {_reencoding(found, reading, whole)}")
    elif largest[1] == "augment":
        words.append(
            f"augment-bound: RandAugment and colour jitter take {share}; only more data.workers help"
        )
    else:
        words.append(f"crop-bound: crop, scale, normalise, erase and collate take {share}")
    if found.on_device is not None and whole / found.on_device >= WORTH_SAYING:
        words.append(
            f"with a GPU, augment.device=model moves crop, flip, normalise and erase there: workers ×"
            f"{whole / found.on_device:.1f}"
        )
    return [*words, *_workers(found)]


def _reencoding(found: Found, reading: float, whole: float) -> str:
    if found.reencoded is None:
        return "fewer pixels or more data.workers help"
    gain = 1 / found.reencoded
    if gain < WORTH_SAYING:
        return f"re-encoding by the recipe of prepare.py would not help (×{gain:.1f}), more data.workers do"
    rest = whole - reading * (1 - found.reencoded)
    return (
        f"re-encode with keyframe interval 32 (prepare.py --reencode): reading ×{gain:.1f}, whole clips ×"
        f"{whole / rest:.1f}"
    )


def _workers(found: Found) -> list[str]:
    rates = found.clips_per_second
    best = max(rates, key=lambda number: rates[number])
    if found.demand is None:
        return [
            f"most clips come with data.workers={best}: {rates[best]:.1f} a second on {found.cores} cores; "
            "--demand CLIPS_A_SECOND says whether that keeps up with your model"
        ]
    enough = [number for number, wait in sorted(found.waits.items()) if wait <= KEEPS_UP]
    if enough:
        return [
            f"the loader keeps up: with data.workers={enough[0]} a model of {found.demand:g} clips a second waits "
            f"{found.waits[enough[0]]:.1%} of its time"
        ]
    each = max(rate / max(number, 1) for number, rate in rates.items())
    return [
        f"the loader is too slow: a model of {found.demand:g} clips a second waits {found.waits[best]:.0%} of its time "
        f"with data.workers={best}; about data.workers={math.ceil(found.demand / each)} would do, each with a core "
        f"(here: {found.cores})"
    ]
