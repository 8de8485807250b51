"""List files: `path label [start_seconds end_seconds]` per line, with any usual separator."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path

from hiera_video.data.manifest.class_names import find_class_names
from hiera_video.data.manifest.frame_list import (
    NO_LABEL,
    Lines,
    is_folder_list,
    is_picture_list,
    read_folder_list,
    read_picture_list,
)
from hiera_video.data.manifest.record import VIDEO_SUFFIXES, Label, Manifest, Record, as_tuple
from hiera_video.errors import ConfigError, ManifestError
from hiera_video.utils.safe_paths import SafeRoot
from hiera_video.utils.text_files import read_text

SEPARATORS = ("::", "\t", ",", " ")
SNIFFED_LINES = 200
LONGEST_LINE = 8192


def read_list(path: Path, root: str | None, separator: str | None) -> Manifest:
    """Read a list of videos or of frame folders, with the class names beside it.

    Args:
        path: The list.
        root: Folder that relative paths start from; None: the list's folder.
        separator: Separator of the columns; None: detected.

    Raises:
        ManifestError: A line is wrong; the message starts with `file:line`.
    """
    lines = [
        (number, line) for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip()
    ]
    if not lines:
        raise ManifestError(f"{path}: is empty; write one `path label` line per video")
    safe_root = SafeRoot(root if root is not None else path.parent)
    if is_picture_list(lines):
        records = read_picture_list(path, lines, safe_root)
        places = [record.path for record in records]
    else:
        if is_folder_list(lines[:SNIFFED_LINES]):
            records = read_folder_list(path, lines, safe_root)
        else:
            records = _read_video_list(path, lines, safe_root, separator)
        places = [f"{path}:{number}" for number, _ in lines]
    names, names_file = find_class_names(path)
    if names is not None:
        for record, where in zip(records, places):
            _check_label(record.label, len(names), where, names_file)
    manifest = Manifest(
        records=tuple(records), class_names=names, multi_label=False, source=str(path)
    )
    # one `3;7` anywhere makes every label a tuple
    multi_label = any(isinstance(record.label, tuple) for record in records)
    return manifest.to_multi_label() if multi_label else manifest


def format_line(record: Record, path: str) -> str:
    """Return the line of a list file, with its line end, that reads back as `record`.

    Args:
        record: The record to write.
        path: Its path as it stands in the list.

    Raises:
        ManifestError: The record is a folder of frames with a name that a list cannot hold.
    """
    labels = as_tuple(record.label)
    label = ";".join(map(str, labels))
    if isinstance(record.label, tuple) and len(labels) == 1:
        label += ";"
    if record.num_frames is not None:
        line = f"{path} {record.num_frames} {label or NO_LABEL}"
        if not is_folder_list([(1, line)]):
            raise ManifestError(
                f"{record.path}: is a folder of frames whose name ends like a video file's or "
                "with a separate number, which a list cannot hold; rename the folder"
            )
        return line + "\n"
    # without a known suffix, quotes mark the end of the path
    columns = [path if path.lower().endswith(VIDEO_SUFFIXES) or '"' in path else f'"{path}"']
    columns += [label] if label else []
    if record.start_seconds is not None and record.end_seconds is not None:
        columns += [f"{record.start_seconds:.10g}", f"{record.end_seconds:.10g}"]
    return " ".join(columns) + "\n"


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


# -- lists of videos ---------------------------------------------------------------------------


def _read_video_list(
    path: Path, lines: Lines, root: SafeRoot, separator: str | None
) -> list[Record]:
    pattern = _line_pattern(separator or _sniff_separator(path, lines[:SNIFFED_LINES]))
    records: list[Record] = []
    first_lines: dict[tuple[str, float | None, float | None], int] = {}
    for number, line in lines:
        where = f"{path}:{number}"
        if len(line) > LONGEST_LINE:
            raise ManifestError(
                f"{where}: {len(line)} characters in one line; is this a list of videos?"
            )
        video, label, start, end = _parse_line(line.strip(), pattern, where)
        full = root.resolve(video, where)
        if (first := first_lines.setdefault((full, start, end), number)) != number:
            raise ManifestError(f"{where}: {video!r} is also on line {first}; remove one of them")
        records.append(
            Record(path=full, label=label, row=len(records), start_seconds=start, end_seconds=end)
        )
    return records


def _line_pattern(separator: str) -> re.Pattern[str]:
    """Return the pattern of a line.

    A path may contain the separator. It ends at the last video suffix that a separator follows or,
    without such a suffix, at the last separator.
    """
    gap = r"\s+" if separator.isspace() else r"\s*" + re.escape(separator) + r"\s*"
    suffixes = "|".join(re.escape(suffix) for suffix in VIDEO_SUFFIXES)
    return re.compile(
        rf'(?:"(?P<quoted>[^"]+)"|(?P<path>.+(?i:{suffixes}))|(?P<plain>.+(?={gap}\S*$)|\S+))'
        rf"(?:{gap}(?P<label>\S+?)(?:{gap}(?P<start>\S+?){gap}(?P<end>\S+?))?)?"
    )


def _sniff_separator(path: Path, lines: Lines) -> str:
    """Return the separator that fits most lines, so that an error names the bad line among them."""
    texts = [line.strip()[:LONGEST_LINE] for _, line in lines]
    fitting = {}
    for separator in SEPARATORS:
        matches = map(_line_pattern(separator).fullmatch, texts)
        fitting[separator] = sum(match is not None and _is_plausible(match) for match in matches)
    best = max(SEPARATORS, key=lambda separator: fitting[separator])
    if fitting[best] == 0:
        raise ManifestError(
            f"{path}:1: cannot detect the separator of path and label in {texts[0][:80]!r}; "
            "write `path label` or set data.separator (tried `::`, tab, comma, space)"
        )
    return best


def _is_plausible(match: re.Match[str]) -> bool:
    """Return True for a path with a known suffix, or any path followed by a number.

    `a.mp4::3` is not a path.
    """
    if match["plain"] is None:
        return True
    return match["label"] is not None and any(character.isdigit() for character in match["label"])


def _parse_line(
    line: str, pattern: re.Pattern[str], where: str
) -> tuple[str, Label, float | None, float | None]:
    match = pattern.fullmatch(line)
    if match is None:
        raise ManifestError(
            f"{where}: {line[:120]!r} is not `path label [start_seconds end_seconds]`; "
            "correct it or set data.separator"
        )
    video = match["quoted"] or match["path"] or match["plain"]
    start, end = (_parse_seconds(match[name], where) for name in ("start", "end"))
    if start is not None and end is not None and not end > start:
        raise ManifestError(
            f"{where}: ends at {end:g} s, before its start at {start:g} s; "
            "swap or correct the columns"
        )
    return video, _parse_label(match["label"], where), start, end


def _parse_label(text: str | None, where: str) -> Label:
    if text is None:
        return None
    parts = text.split(";")
    if len(parts) > 1 and parts[-1] == "":
        parts.pop()  # `3;` is one label of a multi-label list
    for part in parts:
        if re.fullmatch(r"[0-9]{1,9}", part) is None:
            header = "; remove a header line" if where.endswith(":1") else ""
            raise ManifestError(
                f"{where}: label {part!r} is not a class index: must be a whole number from 0, "
                f"several joined by `;`{header}"
            )
    if ";" not in text:
        return int(text)
    return tuple(sorted({int(part) for part in parts}))


def _parse_seconds(text: str | None, where: str) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ManifestError(
            f"{where}: time {text!r} must be seconds from the video's start, 0 or more"
        )
    return value


def _check_label(label: Label, count: int, where: str, names_file: Path | None) -> None:
    for index in as_tuple(label):
        if index >= count:
            raise ManifestError(
                f"{where}: label {index} is too high: {names_file} names {count} classes, "
                f"0 to {count - 1}; correct the label or complete the names"
            )
