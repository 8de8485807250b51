"""Segments of a list that lie outside their videos, or end beyond them."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from hiera_video.data.background import BACKGROUND
from hiera_video.data.manifest.record import Manifest, Record, as_tuple
from hiera_video.errors import DecodeError, ManifestError
from hiera_video.utils.text_files import read_lines
from hiera_video.video import open_video
from hiera_video.video.options import Backend
from hiera_video.video.stated_end import stated_end

logger = logging.getLogger(__name__)
TOLERANCE_SECONDS = 1.0
"""Segments may end this much beyond their video without a warning: lists round times."""


def timed_records(manifest: Manifest) -> dict[str, list[Record]]:
    """Return the records with times of each video, without those of the background."""
    names = manifest.class_names or ()
    found: dict[str, list[Record]] = {record.path: [] for record in manifest.records}
    for record in manifest.records:
        labels = [
            label for label in as_tuple(record.label) if names[label : label + 1] != (BACKGROUND,)
        ]
        if labels and record.start_seconds is not None:
            found[record.path].append(record)
    return found


def check_headers(
    manifest: Manifest, timed: Mapping[str, Sequence[Record]], backend: Backend
) -> None:
    """Check that segments start before the end of their video, as far as headers state it.

    What a header does not tell is found when the video is scored.

    Raises:
        ManifestError: Segments start later.
    """
    outside = list[tuple[Record, float, float]]()
    for path, records in timed.items():
        last = max((record.start_seconds or 0 for record in records), default=0)
        stated = stated_end(path) if records else None
        if stated is None or last < stated:
            continue
        with suppress(DecodeError), open_video(records[0].source, backend) as video:
            end = video.times[-1] + 1 / video.fps  # a header may estimate it
            outside += records_outside(records, video.times[0], end)
    refuse_outside(manifest, outside)


def records_outside(
    records: Sequence[Record], first: float, end: float
) -> list[tuple[Record, float, float]]:
    """Return the records that share no time with a video from `first` to `end`, with both."""
    return [
        (record, first, end)
        for record in records
        if (record.start_seconds or 0) >= end or (record.end_seconds or math.inf) <= first
    ]


def records_clipped(records: Sequence[Record], end: float) -> list[tuple[Record, float]]:
    """Return the records that end well beyond the `end` of their video, with it."""
    return [
        (record, end) for record in records if (record.end_seconds or 0) > end + TOLERANCE_SECONDS
    ]


def refuse_outside(manifest: Manifest, outside: Sequence[tuple[Record, float, float]]) -> None:
    """Raise `ManifestError` if there are segments outside their videos."""
    if outside:
        record, first, end = outside[0]
        more = (
            f"; so {'do' if len(outside) > 2 else 'does'} {len(outside) - 1} more"
            if len(outside) > 1
            else ""
        )
        raise ManifestError(
            f"{_describe(manifest, record)} lies outside {record.path}, {first:.2f} to {end:.2f} s"
            f"{more}; correct the lines"
        )


def warn_of_clipped(manifest: Manifest, clipped: Sequence[tuple[Record, float]]) -> None:
    """Log how many segments end beyond their video, with the first."""
    if clipped:
        record, end = clipped[0]
        logger.warning(
            "%s: %s%s of %s, which ends at %.2f s",
            manifest.source,
            "1 segment ends beyond the end of the video and is clipped; "
            if len(clipped) == 1
            else f"{len(clipped)} segments end beyond the end of the video and are clipped; first ",
            _describe(manifest, record),
            record.path,
            end,
        )


def _describe(manifest: Manifest, record: Record) -> str:
    """Return the place and the times of a segment of a list, for messages."""
    path, where = Path(manifest.source), f"{manifest.source}: video {record.row + 1}"
    if path.is_file() and path.suffix.lower() != ".json":  # a list: one record a line
        for number, _ in islice(read_lines(path), record.row, record.row + 1):
            where = f"{path}:{number}"
    return f"{where}: segment {record.start_seconds:g} to {record.end_seconds:g} s"
