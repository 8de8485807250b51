"""Warnings of slow loading and unreadable videos, each given once."""

from __future__ import annotations

import logging

import pytest

from hiera_video.train.watch import NAMED_VIDEOS, LoaderWatch, UnreadableWatch


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
    assert caplog.text.count("tools/check_data.py lists them all") == 1
