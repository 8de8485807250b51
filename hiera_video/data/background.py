"""Background of untrimmed videos: the parts that no labelled segment covers.

    segments     |----[ left ]--------[ up ]-[ left ]--------------|
    background   |----|      |--------|    |-|      |--------------|

A background record covers all these parts of a video. Training draws a clip from one of them, a
test takes the middle of the longest.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from hiera_video.data.manifest.record import Label, Manifest, Record
from hiera_video.data.sampling import ClipConfig, FrameRange, clip_span, frame_range_of
from hiera_video.errors import ManifestError

BACKGROUND = "background"
"""Name of the class, where a video has one label."""


def add_background(manifest: Manifest, share: float | None) -> Manifest:
    """Return a list of labelled segments with records for the background of its videos.

    With one label a video, they get the class `background`: the list's own class of that name, or
    one after the last. In a multi-label list they show none of the classes.

    Args:
        manifest: Segments of untrimmed videos.
        share: Number of background records, as a share of the number of segments; each video gets
            one in turn. None: one a video, and none if the list has no segments.

    Raises:
        ManifestError: The list has no segments and `share` is given, or it has no class names.
    """
    segments = dict[str, list[tuple[float, float]]]()
    first = dict[str, Record]()
    for record in manifest.records:
        first.setdefault(record.path, record)
        if record.start_seconds is not None and record.end_seconds is not None:
            segments.setdefault(record.path, []).append((record.start_seconds, record.end_seconds))
    if not segments and share is None:  # trimmed videos
        return manifest
    if not segments:
        raise ManifestError(
            f"{manifest.source}: has no segments, and background is sampled from what they leave "
            "of their videos; write `path label start_seconds end_seconds` lines, or set "
            "data.background=0"
        )
    names, label = _with_background(manifest)
    paths = list(segments)
    count = len(paths) if share is None else round(share * sum(map(len, segments.values())))
    records = [
        replace(
            first[path],
            label=label,
            row=len(manifest.records) + number,
            start_seconds=None,
            end_seconds=None,
            excluded_seconds=tuple(sorted(segments[path])),
        )
        for number, path in ((number, paths[number % len(paths)]) for number in range(count))
    ]
    return replace(manifest, records=(*manifest.records, *records), class_names=names)


def _with_background(manifest: Manifest) -> tuple[tuple[str, ...] | None, Label]:
    """Return the class names with the background, and its label."""
    names = manifest.class_names
    if manifest.multi_label:
        return names, ()
    if names is None:
        raise ManifestError(
            f"{manifest.source}: has no class names, so the background would have no fixed label; "
            "write labels.txt beside it, with one name a line"
        )
    names = names if BACKGROUND in names else (*names, BACKGROUND)
    return names, names.index(BACKGROUND)


def free_ranges(
    times: Sequence[float], fps: float, excluded_seconds: Sequence[tuple[float, float]]
) -> list[FrameRange]:
    """Return the ranges of frames that lie in none of some segments.

    Args:
        times: Presentation time of each frame, in seconds, ascending.
        fps: Frame rate of the video.
        excluded_seconds: Start and end of each segment, by start; they may overlap.
    """
    ranges, first = [], 0
    for start, end in excluded_seconds:
        segment = frame_range_of(times, fps, start, end)
        if segment.first > first:
            ranges.append(FrameRange(first=first, num_frames=segment.first - first, fps=fps))
        first = max(first, segment.first + segment.num_frames)
    if first < len(times):
        ranges.append(FrameRange(first=first, num_frames=len(times) - first, fps=fps))
    return ranges


def longest_range(ranges: Sequence[FrameRange]) -> FrameRange:
    """Return the longest range, the first of equals."""
    return max(ranges, key=lambda part: part.num_frames)


def training_range(
    parts: Sequence[FrameRange], record: Record, config: ClipConfig, generator: random.Random
) -> FrameRange:
    """Return the range of frames that a training clip of a record is sampled from.

    Of background, a part is drawn for a dense clip. Where a clip covers its whole range
    (`sampling=segments`), an interval as long as one of the labelled segments is drawn.

    Args:
        parts: The record's ranges.
        record: The record; only one of background draws random numbers.
        config: Which frames make a clip.
        generator: Source of the choice.
    """
    if not record.excluded_seconds:
        return parts[0]
    fps = parts[0].fps
    if config.sampling == "dense":
        return draw_range(parts, clip_span(config, fps), generator)
    start, end = generator.choice(record.excluded_seconds)
    length = max(round((end - start) * fps), 1)
    part = draw_range(parts, length, generator)
    length = min(length, part.num_frames)
    first = part.first + generator.randint(0, part.num_frames - length)
    return FrameRange(first=first, num_frames=length, fps=fps)


def draw_range(ranges: Sequence[FrameRange], span: float, generator: random.Random) -> FrameRange:
    """Draw a range for a clip, so that every position of a clip in any of them is equally likely.

    Ranges that are shorter than a clip are drawn only if all are; then the longest is returned.

    Args:
        ranges: At least one.
        span: Frames that a clip spans.
        generator: Source of the choice.
    """
    positions = [max(part.num_frames - span + 1, 0.0) for part in ranges]
    place = generator.random() * sum(positions)
    for part, count in zip(ranges, positions):
        if place < count:
            return part
        place -= count
    return longest_range(ranges)
