"""Timelines of videos as one HTML page without scripts or network access.

Each line of a timeline shows some seconds of a video: its film strip, the scores of the classes,
and a lane of bars for each kind of segment, such as the labelled and the found ones.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hiera_video.utils.pages import render_page
from hiera_video.viz.strips import film_strip

LINES, FRAMES, TICKS = 8, 12, 6
"""Lines of a video at most, frames of a line's strip, and marks on its axis."""
LENGTHS = (30, 60, 120, 300, 600, 1200, 1800, 3600)
"""Seconds of a line."""
STRIP_HEIGHT, POINTS = 64, 300
"""Height of a strip in pixels, and points of a score curve in a line at most."""
COLOURS = (
    *("#3b6fc4", "#d9822b", "#4f9d69", "#c8574e", "#8a63b8"),
    *("#8c6d46", "#d175b7", "#6b7480", "#a3a31f", "#2a9fb0"),
)
"""Colours of the classes in the order of their first appearance; they repeat after ten."""


@dataclass(frozen=True, kw_only=True)
class TimelineBar:
    """A segment of a lane."""

    start_seconds: float
    end_seconds: float
    label: int
    """Class index."""
    score: float | None = None


@dataclass(frozen=True, kw_only=True)
class TimelineVideo:
    """A video with its lanes."""

    title: str
    duration_seconds: float
    lanes: Mapping[str, Sequence[TimelineBar]]
    """Segments by the name of their lane."""
    times: NDArray[np.float64]
    """[n] times of the scores."""
    scores: NDArray[np.float32]
    """[n, K] scores of the classes."""
    frames: Callable[[Sequence[float]], NDArray[np.uint8] | None]
    """Returns the frames shown at some times, uint8 [T, H, W, 3], or None if they cannot be read;
    called once, so small frames save memory."""


def timeline_page(
    title: str,
    videos: Sequence[TimelineVideo],
    names: Sequence[str],
    *,
    facts: Sequence[str] = (),
    columns: Sequence[str] = (),
    rows: Sequence[Sequence[str]] = (),
) -> str:
    """Return the page.

    Args:
        title: Heading.
        videos: Videos, each with a timeline of its own.
        names: Name of each class.
        facts: Lines below the heading.
        columns: Heads of a table above the timelines; empty for no table.
        rows: Cells of the table; the first of each row is a name, the others are numbers.
    """
    shown = [bar.label for video in videos for bars in video.lanes.values() for bar in bars]
    number_of = {label: number for number, label in enumerate(dict.fromkeys(shown), 1)}
    return render_page(
        "hiera_video.viz",
        "timeline.html",
        title=title,
        facts=facts,
        columns=columns,
        rows=rows,
        videos=[(video, list(lines_of(video, number_of))) for video in videos],
        names=names,
        number_of=number_of,
        colour=colour,
        clock=clock,
    )


def colour(number: int) -> str:
    """Return the colour of the class with this number, from 1."""
    return COLOURS[(number - 1) % len(COLOURS)]


def clock(seconds: float, decimals: int = 0) -> str:
    """Return a time as hours, minutes and seconds.

    >>> clock(75), clock(3675.25, 1), clock(4, 2)
    ('1:15', '1:01:15.2', '0:04.00')
    """
    units = 10**decimals
    whole = round(seconds * units)
    minutes, rest = divmod(whole, 60 * units)
    width = 3 + decimals if decimals else 2
    text = f"{minutes % 60:02d}" if minutes >= 60 else f"{minutes}"
    hours = f"{minutes // 60}:" if minutes >= 60 else ""
    return f"{hours}{text}:{rest / units:0{width}.{decimals}f}"


def line_length(duration: float) -> float:
    """Return the seconds of a line, so that a video has at most `LINES`; a short one has one.

    >>> line_length(5), line_length(600), line_length(7200), line_length(100_000)
    (5, 120, 1200, 12500.0)
    """
    if duration <= LENGTHS[0]:
        return duration
    fitting = (length for length in LENGTHS if duration <= LINES * length)
    return next(fitting, duration / LINES)


@dataclass(frozen=True, kw_only=True)
class TimelineLine:
    """What a line of a timeline shows; positions and widths are percentages of a full line."""

    width: float
    """Width of the strip: the last line of a video may be shorter."""
    strip: str | None
    """Film strip, as a data URL."""
    ticks: list[tuple[float, str]]
    """Position and text of each mark of the axis."""
    curves: list[tuple[int, str]]
    """Number of a class and the points of its curve, in 0 to 100 to the right and downwards."""
    lanes: dict[str, list[tuple[float, float, int, TimelineBar]]]
    """Position, width, number of the class, and segment of each bar."""


def lines_of(video: TimelineVideo, number_of: Mapping[int, int]) -> Sequence[TimelineLine]:
    """Return the lines of a video.

    Args:
        video: The video.
        number_of: Number of each class that the page shows.
    """
    length = line_length(video.duration_seconds)
    count = max(math.ceil(video.duration_seconds / length - 1e-6), 1)
    spans = [
        (number * length, min((number + 1) * length, video.duration_seconds))
        for number in range(count)
    ]
    times = [_strip_times(start, end, length) for start, end in spans]
    frames = video.frames([time for line in times for time in line])
    parts = None if frames is None else np.split(frames, np.cumsum([*map(len, times)])[:-1])
    return [
        _line(video, number_of, span, length, None if parts is None else parts[number])
        for number, span in enumerate(spans)
    ]


def _strip_times(start: float, end: float, length: float) -> list[float]:
    """Return the times of the frames of a line's strip, fewer in a shorter line."""
    count = max(round(FRAMES * (end - start) / length), 1)
    return [start + (end - start) * (number + 0.5) / count for number in range(count)]


def _line(
    video: TimelineVideo,
    number_of: Mapping[int, int],
    span: tuple[float, float],
    length: float,
    frames: NDArray[np.uint8] | None,
) -> TimelineLine:
    start, end = span
    place = partial(_percent, start=start, length=length)
    lanes = {
        name: [
            (
                place(max(bar.start_seconds, start)),
                (min(bar.end_seconds, end) - max(bar.start_seconds, start)) / length * 100,
                number_of[bar.label],
                bar,
            )
            for bar in bars
            if bar.start_seconds < end and bar.end_seconds > start
        ]
        for name, bars in video.lanes.items()
    }
    ticks = [start + length * number / TICKS for number in range(TICKS + 1)]
    decimals = 0 if length % TICKS == 0 else 1
    return TimelineLine(
        width=place(end),
        strip=None if frames is None else _data_url(film_strip(frames, height=STRIP_HEIGHT)),
        ticks=[(place(tick), clock(tick, decimals)) for tick in ticks if tick <= end + 1e-6],
        curves=_curves(video, number_of, start, length),
        lanes=lanes,
    )


def _percent(seconds: float, *, start: float, length: float) -> float:
    return (seconds - start) / length * 100


def _curves(
    video: TimelineVideo, number_of: Mapping[int, int], start: float, length: float
) -> list[tuple[int, str]]:
    """Return the curve of each class that the video shows."""
    labels = dict.fromkeys(bar.label for bars in video.lanes.values() for bar in bars)
    first, stop = np.searchsorted(video.times, [start, start + length])
    # a neighbour on each side, so that curves do not end before the line does
    chosen = np.arange(max(first - 1, 0), min(stop + 1, len(video.times)))
    chosen = chosen[:: max(math.ceil(len(chosen) / POINTS), 1)]
    curves = []
    for label in labels:
        points = (
            f"{_percent(video.times[i], start=start, length=length):.2f},"
            f"{100 - 100 * video.scores[i, label]:.1f}"
            for i in chosen
        )
        curves.append((number_of[label], " ".join(points)))
    return curves


def _data_url(picture: bytes) -> str:
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
