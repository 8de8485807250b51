"""Warnings of slow loading, unreadable videos and collapse, each given once."""

from __future__ import annotations

import logging

import pytest

from hiera_video.train.watch import (
    NAMED_VIDEOS,
    CollapseWatch,
    LoaderWatch,
    UnreadableWatch,
    warn_of_left_out,
)


def test_slow_loading_is_warned_of_again_only_after_it_recovered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch, warnings = LoaderWatch(), []
    with caplog.at_level(logging.WARNING):
        for share in (0.9, 0.1, 0.3, 0.4, 0.05, 0.5):
            watch.observe(share)
            warnings.append(len(caplog.records))
    assert warnings == [0, 0, 1, 1, 1, 2]
    words = "the model waits for clips 30 % of the time; raise data.workers"
    assert words in caplog.records[0].getMessage()


def test_unreadable_videos_are_counted_once_they_are_too_many_to_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = UnreadableWatch()
    watch.observe((f"{number}.mp4", "empty") for number in range(NAMED_VIDEOS + 5))
    assert caplog.text.count("substituted by another video") == NAMED_VIDEOS
    assert caplog.text.count("hiera-video check-data lists them all") == 1


def test_validations_that_leave_videos_out_are_named(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_left_out({"top1": 100.0, "evaluated": 4, "of": 4})
    warn_of_left_out({"loss": 1.0})
    assert caplog.text == ""
    warn_of_left_out({"top1": 100.0, "evaluated": 1, "of": 4})
    words = "validation: 3 of 4 videos could not be read and count for nothing; hiera-video check"
    assert words in caplog.text


def test_collapsed_features_are_warned_of_again_only_after_they_recovered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch, records = CollapseWatch(), []
    watch.observe(5, {"loss": 2.0, "top1": 0.1})  # fine-tuning
    rows = [(9.1, 0.4), (1.94, 0.4), (1.5, 0.4), (2.9, 0.4), (3.0, 0.04), (3.0, 0.05), (7.0, 0.049)]
    with caplog.at_level(logging.INFO):
        for step, (rank, std) in enumerate(rows):
            watch.observe(step, {"effective_rank": rank, "feature_std": std})
            records.append(len(caplog.records))
    assert records == [0, 1, 1, 1, 1, 2, 3]
    first, recovery, second = (record.getMessage() for record in caplog.records)
    assert "step 1: features collapse: effective_rank 1.94 (limit 2), feature_std 0.400" in first
    assert "mae.masking=future (still scenes), mae.variance_floor=0.05 (flat or dark" in first
    assert recovery == "step 5: features recover: effective_rank 3.00"
    assert (
        "step 6: features collapse: effective_rank 7.00 (limit 2), feature_std 0.049 (l" in second
    )
