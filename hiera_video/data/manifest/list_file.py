"""Lists of videos as people have them: `path label [start_seconds end_seconds]` a line, in any usual separator."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path

from hiera_video.data.manifest.class_names import class_names_beside
from hiera_video.data.manifest.frame_list import (
    NO_LABEL,
    names_folders,
    names_pictures,
    read_folders,
    read_pictures,
)
from hiera_video.data.manifest.record import VIDEO_SUFFIXES, Label, Manifest, Record, as_tuple
from hiera_video.errors import ConfigError, ManifestError
from hiera_video.utils.safe_paths import SafeRoot
from hiera_video.utils.text_files import read_text

SEPARATORS = ("::", "\t", ",", " ")
SNIFFED_LINES = 200
LONGEST_LINE = 8192


def read_list(path: Path, root: str | None, separator: str | None) -> Manifest:
    lines = [
        (number, line) for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip()
    ]
    if not lines:
        raise ManifestError(f"{path}: is empty; write one `path label` line a video")
    confined = SafeRoot(root if root is not None else path.parent)
    names, names_from = class_names_beside(path)
    if names_pictures(lines) or names_folders(lines[:SNIFFED_LINES]):
        read = read_pictures if names_pictures(lines) else read_folders
        records = read(path, lines, confined)
        if names is not None:
            for record in records:
                _check_known(record.label, len(names), record.path, names_from)
        return _uniform(records, names, str(path))
    pattern = _line_pattern(
        separator
        or _sniff(path, [line.strip()[:LONGEST_LINE] for _, line in lines[:SNIFFED_LINES]])
    )
    records = []
    seen: dict[tuple[str, float | None, float | None], int] = {}
    for number, line in lines:
        where = f"{path}:{number}"
        if len(line) > LONGEST_LINE:
            raise ManifestError(
                f"{where}: {len(line)} characters in one line; is this a list of videos?"
            )
        video, label, start, end = _parse_line(line.strip(), pattern, where)
        if names is not None:
            _check_known(label, len(names), where, names_from)
        full = confined.resolve(video, where)
        if (first := seen.setdefault((full, start, end), number)) != number:
            raise ManifestError(
                f"{where}: {video!r} stands on line {first} already; remove one of the two"
            )
        record = Record(
            path=full, label=label, row=len(records), start_seconds=start, end_seconds=end
        )
        records.append(record)
    return _uniform(records, names, str(path))


def line_of(record: Record, path: str) -> str:
    """A list's line, with its end, that reads back as the record with `path` for its path. `ManifestError` for a folder of
    frames with a name that no list can hold."""
    labels = as_tuple(record.label)
    label = ";".join(map(str, labels)) + (
        ";" if isinstance(record.label, tuple) and len(labels) == 1 else ""
    )
    if record.num_frames is not None:
        line = f"{path} {record.num_frames} {label or NO_LABEL}"
        if not names_folders([(1, line)]):
            raise ManifestError(
                f"{record.path}: is a folder of frames whose name ends like a video's or in a number of its own, which lists "
                "of frame folders cannot hold; rename it"
            )
        return line + "\n"
    # where no suffix tells where a path ends, quotes do
    columns = [path if path.lower().endswith(VIDEO_SUFFIXES) or '"' in path else f'"{path}"']
    columns += [label] if label else []
    if record.start_seconds is not None and record.end_seconds is not None:
        columns += [f"{record.start_seconds:.10g}", f"{record.end_seconds:.10g}"]
    return " ".join(columns) + "\n"


def refuse_to_overwrite(listing: Path, sources: Iterable[str], *, ours: bool) -> None:
    """`ConfigError` where writing `listing` would destroy one of the lists that are read, or one that is not `ours`: that
    the tool has not written before."""
    if not listing.exists():
        return
    if any(Path(source).exists() and listing.samefile(source) for source in sources):
        raise ConfigError(
            f"{listing}: is the list to be read, and would be written over; choose another folder to write to"
        )
    if not ours:
        raise ConfigError(
            f"{listing}: is there already, not written by this tool; choose another folder to write to, or move it away"
        )


def _uniform(records: list[Record], names: tuple[str, ...] | None, source: str) -> Manifest:
    """One `3;7` anywhere makes every label a tuple."""
    manifest = Manifest(records=tuple(records), class_names=names, multi_label=False, source=source)
    several = any(isinstance(record.label, tuple) for record in records)
    return manifest.with_several_labels() if several else manifest


def _line_pattern(separator: str) -> re.Pattern[str]:
    """`path sep rest`. A path may contain the separator: it ends at the last video suffix that one follows, and where
    there is no such suffix, at the last separator."""
    gap = r"\s+" if separator.isspace() else r"\s*" + re.escape(separator) + r"\s*"
    suffixes = "|".join(re.escape(suffix) for suffix in VIDEO_SUFFIXES)
    return re.compile(
        rf'(?:"(?P<quoted>[^"]+)"|(?P<path>.+(?i:{suffixes}))|(?P<plain>.+(?={gap}\S*$)|\S+))'
        rf"(?:{gap}(?P<label>\S+?)(?:{gap}(?P<start>\S+?){gap}(?P<end>\S+?))?)?"
    )


def _sniff(path: Path, lines: list[str]) -> str:
    """The separator that most lines can be read with: a bad line among good ones is then told by its own number."""
    readable = {}
    for separator in SEPARATORS:
        matches = [_line_pattern(separator).fullmatch(line) for line in lines]
        readable[separator] = sum(match is not None and _is_plausible(match) for match in matches)
    best = max(SEPARATORS, key=lambda separator: readable[separator])
    if readable[best] == 0:
        raise ManifestError(
            f"{path}:1: cannot tell what separates path and label in {lines[0][:80]!r}; "
            "write `path label` or set data.separator (tried `::`, tab, comma, space)"
        )
    return best


def _is_plausible(match: re.Match[str]) -> bool:
    """A path with a known suffix may stand alone; what has none needs a number behind it (`a.mp4::3` is no path)."""
    if match["plain"] is None:
        return True
    return match["label"] is not None and any(character.isdigit() for character in match["label"])


def _parse_line(
    line: str, pattern: re.Pattern[str], where: str
) -> tuple[str, Label, float | None, float | None]:
    match = pattern.fullmatch(line)
    if match is None:
        raise ManifestError(
            f"{where}: {line[:120]!r} is not `path label [start_seconds end_seconds]`; correct it or set data.separator"
        )
    video = match["quoted"] or match["path"] or match["plain"]
    start, end = (_seconds(match[name], where) for name in ("start", "end"))
    if start is not None and end is not None and not end > start:
        raise ManifestError(
            f"{where}: ends at {end:g} s, before it starts at {start:g} s; swap or correct the columns"
        )
    return video, _label(match["label"], where), start, end


def _label(text: str | None, where: str) -> Label:
    if text is None:
        return None
    parts = text.split(";")
    if len(parts) > 1 and parts[-1] == "":
        parts.pop()  # `3;` is one label of a multi-label list
    for part in parts:
        if re.fullmatch(r"[0-9]{1,9}", part) is None:
            header = "; a header has to be removed" if where.endswith(":1") else ""
            raise ManifestError(
                f"{where}: label {part!r} is not a class index: must be a whole number from 0, "
                f"several joined by `;`{header}"
            )
    if ";" not in text:
        return int(text)
    return tuple(sorted({int(part) for part in parts}))


def _seconds(text: str | None, where: str) -> float | None:
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


def _check_known(label: Label, count: int, where: str, names_from: Path | None) -> None:
    for index in as_tuple(label):
        if index >= count:
            raise ManifestError(
                f"{where}: label {index} is too high: {names_from} names {count} classes, 0 to {count - 1}; "
                "correct the label or complete the names"
            )
