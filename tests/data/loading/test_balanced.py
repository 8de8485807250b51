"""Class-balanced passes: every class equally often, by turns, the same in every process."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from hiera_video.data.loading import balanced as balance
from hiera_video.data.loading.balanced import BalancedClips, balanced_rows
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.sampling import ClipConfig
from hiera_video.errors import ConfigError

LABELS = [0] * 8 + [1] * 2 + [2] * 2


def test_each_class_comes_equally_often_and_goes_through_its_videos() -> None:
    rows = balanced_rows(LABELS, seed=0, epoch=0)
    assert [LABELS[row] for row in rows] == [0, 1, 2] * 4
    counts = Counter(rows)
    assert [counts[row] for row in (8, 9, 10, 11)] == [2, 2, 2, 2] and all(
        counts[row] <= 1 for row in range(8)
    )
    assert rows == balanced_rows(LABELS, seed=0, epoch=0) != balanced_rows(LABELS, seed=0, epoch=1)
    seen = {row for epoch in range(12) for row in balanced_rows(LABELS, seed=0, epoch=epoch)}
    assert seen == set(range(12))


def test_places_are_filled_pass_by_pass_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    records = tuple(
        Record(path=f"{row}.mp4", label=label, row=row) for row, label in enumerate(LABELS)
    )
    manifest = Manifest(records=records, class_names=None, multi_label=False, source="list")
    asked: list[Any] = []

    def samples(self: Any, epoch: int, index: int) -> Any:
        asked.append(self.records[index].row)
        return SimpleNamespace()

    monkeypatch.setattr(balance.TrainClips, "samples", samples)
    clips = BalancedClips(manifest, ClipConfig(), lambda frames, generator: frames, seed=3)
    for key in ((0, 0), (1, 5), (0, 5)):
        clips[key]
    passes = [balanced_rows(LABELS, seed=3, epoch=epoch) for epoch in (0, 1)]
    assert asked == [passes[0][0], passes[1][5], passes[0][5]]


def test_several_labels_a_video_cannot_be_balanced() -> None:
    record = Record(path="a.mp4", label=(0, 1), row=0)
    manifest = Manifest(records=(record,), class_names=None, multi_label=True, source="list")
    with pytest.raises(
        ConfigError,
        match=r"needs one label a video, but this list has several; use train.weighted_loss",
    ):
        BalancedClips(manifest, ClipConfig(), lambda frames, generator: frames, seed=3)
