"""Class-balanced order: an epoch takes the same number of samples from every class."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import cycle, islice

from hiera_video.data.manifest.record import Manifest
from hiera_video.errors import ConfigError


def balanced_rows(class_of: Sequence[int], *, seed: int, epoch: int) -> list[int]:
    """Return which of N records stands at each of N places of an epoch.

    The classes take turns, and each goes through its own records in an order that is drawn for the
    epoch. Records of rare classes come several times, those of frequent ones only in some epochs.

    Args:
        class_of: Class of each record.
        seed: Seed of the run.
        epoch: Number of the epoch.

    >>> class_of = [0, 0, 0, 0, 0, 1]
    >>> [class_of[row] for row in balanced_rows(class_of, seed=0, epoch=0)]
    [0, 1, 0, 1, 0, 1]
    """
    generator = random.Random(f"balance/{seed}/{epoch}")
    classes: dict[int, list[int]] = {}
    for row, label in enumerate(class_of):
        classes.setdefault(label, []).append(row)
    for rows in classes.values():
        generator.shuffle(rows)
    turns = [cycle(classes[label]) for label in sorted(classes)]
    return [next(turn) for turn in islice(cycle(turns), len(class_of))]


def classes_to_balance(manifest: Manifest) -> tuple[int, ...]:
    """Return the class of each record; records without a label count as class 0.

    Raises:
        ConfigError: The manifest is multi-label.
    """
    if manifest.multi_label:
        raise ConfigError(
            "train.balanced_sampling=true: needs one label per video, but this list has several; "
            "use train.weighted_loss"
        )
    return tuple(
        record.label if isinstance(record.label, int) else 0 for record in manifest.records
    )
