"""List files: `path label [start_seconds end_seconds]` per line, with any usual separator."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hiera_video.data.manifest.class_names import find_class_names
from hiera_video.data.manifest.columns import LONGEST_LINE, ColumnReader, sniff_separator
from hiera_video.data.manifest.frame_list import (
    Lines,
    is_folder_list,
    is_picture_list,
    read_folder_list,
    read_picture_list,
)
from hiera_video.data.manifest.known_files import (
    refuse_known_files,
    refuse_lists_with_offsets,
    refuse_ucf101_numbers,
)
from hiera_video.data.manifest.labels import NO_LABEL, LabelReader, format_label
from hiera_video.data.manifest.record import VIDEO_SUFFIXES, Manifest, Record
from hiera_video.errors import ConfigError, ManifestError
from hiera_video.utils.collector import collector_paused
from hiera_video.utils.safe_paths import SafeRoot
from hiera_video.utils.text_files import read_lines

logger = logging.getLogger(__name__)

SNIFFED_LINES = 200


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """Reading options of a list."""

    root: str | None = None
    """Folder that relative paths start from; None: the list's folder."""
    separator: str | None = None
    """Separator of the columns; None: detected."""
    multi_label: bool = False
    """Read every column after the path as a label (`a.mp4 1 3 5`)."""
    follow_links: bool = False
    """Let symbolic links lead out of the root."""


def read_list(path: Path, options: ListOptions) -> Manifest:
    """Read a list of videos or of frame folders, with the class names beside it.

    Time is linear in the size of the list; memory is that of the records.

    Raises:
        ManifestError: A line is wrong; the message starts with `file:line`.
    """
    remaining = read_lines(path)
    head = list(itertools.islice(remaining, SNIFFED_LINES))
    if not head:
        raise ManifestError(f"{path}: is empty; write one `path label` line per video")
    texts = [line[:LONGEST_LINE] for _, line in head]
    if options.separator is None:  # a list of a form that the user states is what it says
        refuse_known_files(path, texts)
    lines = itertools.chain(head, remaining)
    root = SafeRoot(
        path.parent if options.root is None else options.root, follow_links=options.follow_links
    )
    names, names_file = find_class_names(path)
    labels = LabelReader(None if names is None else len(names), str(names_file))
    if is_picture_list(head):
        records = read_picture_list(path, lines, root, labels, multi_label=options.multi_label)
    elif is_folder_list(head, multi_label=options.multi_label):
        records = read_folder_list(path, lines, root, labels, multi_label=options.multi_label)
    else:
        if not options.multi_label and options.separator is None:
            refuse_lists_with_offsets(path, texts)
        columns = ColumnReader(
            options.separator or sniff_separator(path, head), options.multi_label
        )
        with collector_paused():  # it takes a fifth of the time of a million records
            records = _read_video_list(path, lines, root, columns, labels)
        if names is None:
            refuse_ucf101_numbers(path, records)
    manifest = Manifest(
        records=tuple(records), class_names=names, multi_label=False, source=str(path)
    )
    # one `3;7` anywhere makes every label a tuple
    multi_label = options.multi_label or any(isinstance(record.label, tuple) for record in records)
    return manifest.to_multi_label() if multi_label else manifest


def format_line(record: Record, path: str) -> str:
    """Return the line of a list file, with its line end, that reads back as `record`.

    Args:
        record: The record to write.
        path: Its path as it stands in the list.

    Raises:
        ManifestError: A list cannot hold the name.
    """
    label = format_label(record.label)
    if record.num_frames is not None:
        line = f"{path} {record.num_frames} {label or NO_LABEL}"
        if (
            "\n" in line
            or not is_folder_list([(1, line)], multi_label=False)
            or line != line.strip()
        ):
            raise ManifestError(
                f"{record.path!r}: is a folder of frames whose name ends like a video file's or "
                "with a separate number, or has line breaks or blanks at its ends, which a list "
                "cannot hold; rename the folder"
            )
        return line + "\n"
    columns = [label] if label else []
    if record.start_seconds is not None and record.end_seconds is not None:
        columns = [label or NO_LABEL, f"{record.start_seconds:.10g}", f"{record.end_seconds:.10g}"]
    # without a known suffix, quotes mark the end of the path
    quoted, plain = f'"{path}"', path.lower().endswith(VIDEO_SUFFIXES)
    for written in (path, quoted) if plain else (quoted, path):
        line = " ".join([written, *columns])
        found = ColumnReader(" ", multi_label=False).split(line.strip())
        if (
            found[:2] == (path, columns)
            and "\n" not in line
            and (plain or not is_folder_list([(1, line)], multi_label=False))
        ):
            return line + "\n"
    raise ManifestError(
        f"{record.path!r}: has a line break or quotes in its name, which a list cannot hold; "
        "rename the file"
    )


def refuse_to_overwrite(listing: Path, sources: Iterable[str], *, written_by_us: bool) -> None:
    """Check that writing `listing` destroys no list of the user's.

    Args:
        listing: File that is about to be written.
        sources: Lists that are being read.
        written_by_us: True if an earlier run of the same tool wrote `listing`.

    Raises:
        ConfigError: `listing` is one of `sources`, or exists and was not written by the tool.
    """
    if not listing.exists():
        return
    if any(Path(source).exists() and listing.samefile(source) for source in sources):
        raise ConfigError(
            f"{listing}: is the list that is read and would be overwritten; "
            "choose another output folder"
        )
    if not written_by_us:
        raise ConfigError(
            f"{listing}: exists and was not written by this tool; "
            "choose another output folder, or move the file"
        )


def _read_video_list(
    path: Path, lines: Lines, root: SafeRoot, columns: ColumnReader, labels: LabelReader
) -> list[Record]:
    records: list[Record] = []
    known = set[str | tuple[str, float, float]]()
    times_are_whole, name = True, str(path)
    for number, line in lines:
        where = f"{name}:{number}"
        video, label, times = columns.read(line, where)
        full = root.resolve(video, where)
        may_be_header = not records and not video.lower().endswith(VIDEO_SUFFIXES)
        index = labels.read(label, where, may_be_header=may_be_header)
        start = end = None
        if times:
            start, end = _parse_times(times, where)
            times_are_whole &= all(map(str.isdigit, times))
        key = full if start is None or end is None else (full, start, end)
        if key in known:
            first = _line_of(key, path, root, columns)
            raise ManifestError(
                f"{where}: {video!r} is also on line {first}; remove one of them (to train on some "
                "videos more often, use data.train_repeats or train.balanced_sampling=true)"
            )
        known.add(key)
        records.append(
            Record(
                path=full,
                label=index,
                row=len(records),
                start_seconds=start,
                end_seconds=end,
            )
        )
    timed = next((record for record in records if record.start_seconds is not None), None)
    if timed is not None and times_are_whole:
        logger.warning(
            "warning: %s: three columns after a path are its label, start and end in seconds "
            "(video %d: label %s, %g s to %g s); if all are labels, set data.multi_label=true",
            path, timed.row + 1, format_label(timed.label), timed.start_seconds, timed.end_seconds,
        )  # fmt: skip
    return records


def _line_of(
    key: str | tuple[str, float, float], path: Path, root: SafeRoot, columns: ColumnReader
) -> int:
    """Return the number of the first line with this path and these times."""
    for number, line in read_lines(path):
        video, _, times = columns.read(line, "")
        full = root.resolve(video, "")
        if (full if not times else (full, *_parse_times(times, ""))) == key:
            return number
    raise AssertionError("unreachable")


def _parse_times(times: Sequence[str], where: str) -> tuple[float, float]:
    start, end = (_parse_seconds(text, where) for text in times)
    if not end > start:
        raise ManifestError(
            f"{where}: ends at {end:g} s, before its start at {start:g} s; "
            "swap or correct the columns"
        )
    return start, end


def _parse_seconds(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ManifestError(
            f"{where}: time {text[:80]!r} must be seconds from the video's start, 0 or more"
        )
    return value
