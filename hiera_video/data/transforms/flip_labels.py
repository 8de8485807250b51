"""Horizontal flips where left and right are labels: a flipped clip takes the label of its mirror class, or is not flipped.

    Pushing [something] from left to right  <->  Pushing [something] from right to left        labels swap
    Turning [something] clockwise                  (alone)                                        never flipped

Classes are found by the words of their names.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hiera_video.data.manifest.record import Label, as_tuple

logger = logging.getLogger(__name__)

SIDE = re.compile(r"\b(left|right)(?=(?:wards?|ward|most|hand(?:ed)?|ie|y)?\b)", re.IGNORECASE)
TURN = re.compile(r"\b(counter[- ]?|anti[- ]?)?clockwise\b", re.IGNORECASE)
COUNTER = ("counter-", "counter", "counter ", "anti-", "anti", "anti ")
SHOWN = 3
"""Class names in the warning."""


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """Which clips may be flipped, and what they show then."""

    probability: float
    """Of a flip, where one is allowed."""
    partners: Mapping[int, int | None]
    """Class → the class that it shows flipped, for classes that tell left from right; None: none, it is not flipped."""

    def flip(self, label: Label, generator: random.Random) -> tuple[bool, Label]:
        """Whether to flip a clip, and its label then. One number is drawn, whatever the label."""
        if not generator.random() < self.probability:
            return False, label
        flipped = [self.partners.get(index, index) for index in as_tuple(label)]
        known = [index for index in flipped if index is not None]
        if len(known) < len(flipped):
            return False, label
        return True, tuple(sorted(known)) if isinstance(label, tuple) else (
            known[0] if known else None
        )


def mirror_classes(names: Sequence[str] | None) -> dict[int, int | None]:
    """Class → mirror class, or None where there is none, of the classes that tell left from right.

    >>> mirror_classes(["Moving left", "Moving right", "Moving up", "Turning clockwise"])
    {0: 1, 1: 0, 3: None}
    """
    index_of = {name.lower(): index for index, name in enumerate(names or ())}
    return {
        index: next(
            (index_of[other] for other in _mirrored(name.lower()) if other in index_of), None
        )
        for name, index in index_of.items()
        if SIDE.search(name) or TURN.search(name)
    }


def make_mirror(names: Sequence[str] | None, probability: float) -> Mirror | None:
    """The rule for these classes, with a warning; None where any clip may be flipped as it is."""
    partners = mirror_classes(names) if probability > 0 else {}
    if not partners:
        return None
    assert names is not None
    alone = [names[index] for index, partner in partners.items() if partner is None]
    examples = ", ".join(names[index] for index in list(partners)[:SHOWN])
    logger.warning(
        "augment.flip=%g: %d classes tell left from right (%s%s): flipped clips of %d take the label of the mirrored "
        "class, clips of the other %d are not flipped%s; set augment.flip=0 to flip nothing",
        probability, len(partners), examples, " …" if len(partners) > SHOWN else "", len(partners) - len(alone),
        len(alone), f" ({alone[0]}{' …' if len(alone) > 1 else ''})" if alone else "",
    )  # fmt: skip
    return Mirror(probability=probability, partners=partners)


def _mirrored(name: str) -> list[str]:
    """What the name may be called when left and right change places; the first way of writing that exists counts."""
    sides = SIDE.sub(lambda match: "right" if match[1].lower() == "left" else "left", name)
    if not TURN.search(sides):
        return [sides]
    return [_other_turn(sides, prefix) for prefix in COUNTER]


def _other_turn(name: str, prefix: str) -> str:
    """Swap clockwise and counter-clockwise, the latter written with `prefix`."""
    return TURN.sub(lambda match: "clockwise" if match[1] else f"{prefix}clockwise", name)
