"""Class-balanced sampling: in each pass every class gives the same number of samples, however many videos it has."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

from hiera_video.data.dataset import TrainClips, TrainSamples
from hiera_video.errors import ConfigError


def balanced_rows(labels: Sequence[int], *, seed: int, epoch: int) -> list[int]:
    """For each of N places of a pass, which of N videos stands there: the classes take turns, and each goes through its
    own videos in an order that is drawn for the pass. Videos of rare classes come several times, those of frequent ones
    in some passes only.

    >>> labels = [0, 0, 0, 0, 0, 1]
    >>> [labels[row] for row in balanced_rows(labels, seed=0, epoch=0)]
    [0, 1, 0, 1, 0, 1]
    """
    generator = random.Random(f"balance/{seed}/{epoch}")
    classes: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        classes.setdefault(label, []).append(row)
    for rows in classes.values():
        generator.shuffle(rows)
    turns = [cycle(classes[label]) for label in sorted(classes)]
    return [next(turn) for turn in islice(cycle(turns), len(labels))]


class BalancedClips(TrainClips):
    """`TrainClips` whose places are filled by `balanced_rows`. A video that comes twice in a pass is cropped and
    augmented anew: that is drawn by place."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.multi_label:
            raise ConfigError(
                "train.balanced_sampling: needs one label a video, but this list has several; use train.weighted_loss"
            )
        self._every, self._epoch = self.records, -1
        self._labels = [
            record.label if isinstance(record.label, int) else 0 for record in self.records
        ]

    def samples(self, epoch: int, index: int, *rest: Any) -> TrainSamples:
        """The samples of place `index` in `epoch`."""
        if epoch != self._epoch:
            rows = balanced_rows(self._labels, seed=self.seed, epoch=epoch)
            self.records, self._epoch = tuple(self._every[row] for row in rows), epoch
        return super().samples(epoch, index, *rest)
