"""Timelines: lines, bars, curves and marks of a page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from hiera_video.viz.strips import shrink
from hiera_video.viz.timeline import (
    TimelineBar,
    TimelineVideo,
    clock,
    line_length,
    lines_of,
    timeline_page,
)

NAMES = ("<left>", "right", "unseen")


def bar(label: int, start: float, end: float, score: float | None = 0.5) -> TimelineBar:
    return TimelineBar(start_seconds=start, end_seconds=end, label=label, score=score)


def video(duration: float, bars: Sequence[TimelineBar], **options: object) -> TimelineVideo:
    times = np.arange(0.5, duration)
    asked: list[list[float]] = []

    def frames(seconds: Sequence[float]) -> np.ndarray:
        asked.append(list(seconds))
        return np.zeros((len(seconds), 4, 6, 3), np.uint8)

    made = TimelineVideo(
        title="films/a & b.mp4",
        duration_seconds=duration,
        lanes={"segments": bars},
        times=times,
        scores=np.tile(np.array([[0.25, 1.0, 0.0]], np.float32), (len(times), 1)),
        frames=frames,
    )
    return replace(made, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("duration", "length"),
    [
        (4, 4),
        (30, 30),
        (31, 30),
        (240, 30),
        (241, 60),
        (600, 120),
        (7200, 1200),
        (28801, 28801 / 8),
    ],
)
def test_line_length(duration: float, length: float) -> None:
    assert line_length(duration) == length


def test_clock() -> None:
    assert [clock(at) for at in (0, 59.6, 3599.9, 3600)] == ["0:00", "1:00", "1:00:00", "1:00:00"]
    assert [clock(9.994, 2), clock(125.5, 1)] == ["0:09.99", "2:05.5"]


def test_lines_share_the_segments() -> None:
    bars = [bar(1, 10, 20), bar(0, 25, 45), bar(1, 60, 75)]
    first, second, third = lines_of(video(75, bars), {1: 1, 0: 2})
    # (left, width, number), in percent of 30 s
    assert [row[:3] for row in first.lanes["segments"]] == [
        (pytest.approx(100 / 3), pytest.approx(100 / 3), 1),
        (pytest.approx(250 / 3), pytest.approx(50 / 3), 2),
    ]
    assert [row[:3] for row in second.lanes["segments"]] == [(0, 50, 2)]
    assert [row[:3] for row in third.lanes["segments"]] == [(0, 50, 1)]
    assert (first.width, third.width) == (100, 50)
    assert [text for _, text in third.ticks] == ["1:00", "1:05", "1:10", "1:15"]
    assert [place for place, _ in third.ticks] == pytest.approx([0, 50 / 3, 100 / 3, 50])


def test_strips_are_read_once_and_fewer_frames_fill_a_shorter_line() -> None:
    asked: list[list[float]] = []

    def frames(seconds: Sequence[float]) -> np.ndarray:
        asked.append(list(seconds))
        return np.zeros((len(seconds), 4, 6, 3), np.uint8)

    lines = lines_of(video(40, [], frames=frames), {})
    assert len(asked) == 1 and len(asked[0]) == 12 + 4
    assert asked[0][:2] == [1.25, 3.75] and asked[0][-1] == 30 + 3.5 * 2.5
    assert all(line.strip and line.strip.startswith("data:image/") for line in lines)
    (broken,) = lines_of(video(20, [], frames=lambda _: None), {})
    assert broken.strip is None


def test_curves_of_the_classes_that_are_shown() -> None:
    (line,) = lines_of(video(4, [bar(1, 1, 2)]), {1: 1})
    assert line.curves == [(1, "12.50,0.0 37.50,0.0 62.50,0.0 87.50,0.0")]
    long = lines_of(video(28800, [bar(0, 1, 2)]), {0: 1})
    assert all(points.count(",") <= 300 for line in long for _, points in line.curves)
    assert long[0].curves[0][1].startswith("0.01,75.0 ")


def test_a_page() -> None:
    bars = [bar(1, 10, 20), bar(0, 25, 45, None)]
    html = timeline_page(
        "Segments",
        [video(75, bars), video(20, [])],
        NAMES,
        facts=["a <fact>"],
        columns=["class", "AP"],
        rows=[["<left>", "50.0"]],
    )
    assert html.count('class="line"') == 3 + 1
    assert "&lt;left&gt;" in html and "<left>" not in html and "unseen" not in html
    assert "a &lt;fact&gt;" in html and "films/a &amp; b.mp4" in html
    assert 'title="right, 0:10.00–0:20.00, score 0.50"' in html
    assert 'title="&lt;left&gt;, 0:25.00–0:45.00"' in html
    assert "</span> <bdi>&lt;left&gt;</bdi></li>" in html
    assert "2 segments</summary>" in html and "<td>&lt;left&gt;</td>" in html
    assert not re.search(r"<script|https?://", html)
    assert "No segments." in timeline_page("Segments", [video(20, [])], NAMES)


def test_frames_are_reduced() -> None:
    frame = np.full((128, 200, 3), 7, np.uint8)
    assert shrink(frame, height=64).shape == (64, 100, 3) and shrink(frame, height=64).max() == 7
    assert shrink(frame, height=128) is frame
