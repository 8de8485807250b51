"""Horizontal flips for classes that tell left from right.

A flipped clip takes the label of its mirrored class, or is not flipped if there is none:

    Pushing something from left to right  <->  Pushing something from right to left   labels swap
    Turning something clockwise                (no mirrored class)                    never flipped

Such classes are found by the words of their names.
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
EXAMPLES = 3
"""Class names listed in the warning."""


@dataclass(frozen=True, kw_only=True)
class LabelFlip:
    """Rule of horizontal flips: the classes that allow them, and the label after a flip."""

    probability: float
    """Probability of a flip where one is allowed."""
    mirrored: Mapping[int, int | None]
    """For each class that tells left from right: the class that its flipped clips show, or None if
    there is none and they must not be flipped."""

    def draw(self, label: Label, generator: random.Random) -> tuple[bool, Label]:
        """Draw whether to flip a clip, and return its label then.

        One number is drawn, whatever the label.
        """
        if not generator.random() < self.probability:
            return False, label
        flipped = [self.mirrored.get(index, index) for index in as_tuple(label)]
        known = [index for index in flipped if index is not None]
        if len(known) < len(flipped):
            return False, label
        if isinstance(label, tuple):
            return True, tuple(sorted(known))
        return True, known[0] if known else None


def mirrored_classes(names: Sequence[str] | None) -> dict[int, int | None]:
    """Return the mirrored class, or None, of each class that tells left from right.

    >>> mirrored_classes(["Moving left", "Moving right", "Moving up", "Turning clockwise"])
    {0: 1, 1: 0, 3: None}
    """
    index_of = {name.lower(): index for index, name in enumerate(names or ())}
    return {
        index: next(
            (index_of[other] for other in _mirror_name(name.lower()) if other in index_of), None
        )
        for name, index in index_of.items()
        if SIDE.search(name) or TURN.search(name)
    }


def make_label_flip(names: Sequence[str] | None, probability: float) -> LabelFlip | None:
    """Return the flip rule for these classes and log it; None if every clip may be flipped freely.

    Args:
        names: Class names in the order of their indices, if known.
        probability: Probability of a flip (`augment.flip`).
    """
    mirrored = mirrored_classes(names) if probability > 0 else {}
    if not mirrored:
        return None
    assert names is not None
    alone = [names[index] for index, other in mirrored.items() if other is None]
    examples = ", ".join(names[index] for index in list(mirrored)[:EXAMPLES])
    logger.warning(
        "augment.flip=%g: %d classes tell left from right (%s%s): flipped clips of %d take the "
        "label of the mirrored class, clips of the other %d are not flipped%s; set augment.flip=0 "
        "to flip nothing",
        probability, len(mirrored), examples, " …" if len(mirrored) > EXAMPLES else "",
        len(mirrored) - len(alone), len(alone),
        f" ({alone[0]}{' …' if len(alone) > 1 else ''})" if alone else "",
    )  # fmt: skip
    return LabelFlip(probability=probability, mirrored=mirrored)


def _mirror_name(name: str) -> list[str]:
    """Return spellings of a name with left and right swapped; the first that exists counts."""
    sides = SIDE.sub(lambda match: "right" if match[1].lower() == "left" else "left", name)
    if not TURN.search(sides):
        return [sides]
    return [_swap_turn(sides, prefix) for prefix in COUNTER]


def _swap_turn(name: str, prefix: str) -> str:
    """Swap clockwise and counter-clockwise, the latter written with `prefix`."""
    return TURN.sub(lambda match: "clockwise" if match[1] else f"{prefix}clockwise", name)
