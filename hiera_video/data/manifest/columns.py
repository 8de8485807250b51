"""Columns of a list's lines: path, label and times, with any usual separator."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hiera_video.data.manifest.labels import INDEX_FOR_NAME, LETTER, NO_CLASSES
from hiera_video.data.manifest.record import VIDEO_SUFFIXES
from hiera_video.errors import ManifestError

SEPARATORS = ("::", "\t", ",", " ")
LONGEST_LINE = 8192
NUMBERS = re.compile(r"[0-9.;,]+")
SUFFIX_AND_SEPARATOR = re.compile(
    rf"(?:{'|'.join(map(re.escape, VIDEO_SUFFIXES))})(?:\s|,|::)", re.IGNORECASE
)

Columns = tuple[str, list[str], bool]
"""Path; columns after it; True if a known suffix or quotes show where the path ends."""


class ColumnReader:
    """Splits the lines of a list into path, label and times, in time linear in their length.

    A path may contain the separator. It ends at the last video suffix that a separator follows or,
    without such a suffix, before the last column.

    Args:
        separator: Separator of the columns.
        multi_label: Every column after the path is a label.
    """

    def __init__(self, separator: str, multi_label: bool) -> None:
        self._separator = None if separator.isspace() else separator
        self._multi_label = multi_label

    def read(self, line: str, where: str) -> tuple[str, str | None, list[str]]:
        """Return the path, the label, if any, and the two times, if any, of a stripped line.

        Args:
            line: The line.
            where: Its position, for messages.

        Raises:
            ManifestError: The line is too long, or its columns are not those of a list.
        """
        if len(line) > LONGEST_LINE:
            raise ManifestError(
                f"{where}: {len(line)} characters in one line; is this a list of videos?"
            )
        video, columns, certain = self.split(line)
        if self._multi_label:
            labels = re.sub(r"[,\s]+", ";", ";".join(columns))
            return video, (labels.strip(' ";') and labels) or NO_CLASSES, []
        if certain and len(columns) > 1 and all(map(LETTER.search, columns[:2])):
            raise _class_name_error(where, " ".join(columns))
        if len(columns) not in (0, 1, 3) or not (certain or _is_plain_path(video)):
            raise ManifestError(
                f"{where}: {line[:120]!r} is not `path label [start_seconds end_seconds]`; correct "
                "it, put the path into quotes or set data.separator; if all columns after the "
                "path are labels, set data.multi_label=true"
            )
        return video, columns[0] if columns else None, columns[1:]

    def split(self, line: str) -> Columns:
        """Split a stripped line after its path."""
        if line.startswith('"'):
            video, quote, rest = line[1:].partition('"')
            columns = self._columns(rest)
            if video and quote and (not rest or columns[0] == ""):
                return video, columns[1:], True
        columns = line.split() if self._separator is None else self._columns(line)
        count = len(columns)
        for end in range(count, 0, -1):
            if columns[end - 1].lower().endswith(VIDEO_SUFFIXES):
                return self._join(line, columns, end), columns[end:], True
        end = count - 1
        while self._multi_label and end > 1 and NUMBERS.fullmatch(columns[end - 1]):
            end -= 1
        end = max(end, 1)
        return self._join(line, columns, end), columns[end:], False

    def fits(self, line: str) -> bool:
        """Return True if the separator splits a line into a plausible path and labels."""
        video, columns, certain = self.split(line)
        if any(len(column.split()) != 1 for column in columns):
            return False
        if certain:
            return True
        return bool(columns) and _is_plain_path(video) and any(map(str.isdigit, columns[0]))

    def _columns(self, text: str) -> list[str]:
        if self._separator is not None:
            return [column.strip() for column in text.split(self._separator)]
        columns = text.split()
        # as with other separators, text that starts with one has an empty first column
        return ["", *columns] if text[:1].isspace() else columns or [""]

    def _join(self, line: str, columns: list[str], count: int) -> str:
        """Return the first `count` columns as they stand in the line."""
        if count == 1:
            return columns[0]
        return line.rsplit(self._separator, len(columns) - count)[0].rstrip()


def sniff_separator(path: Path, lines: Sequence[tuple[int, str]]) -> str:
    """Return the separator that fits most lines, so that an error names the bad line among them.

    Args:
        path: The list, for messages.
        lines: Its first lines and their numbers.

    Raises:
        ManifestError: No separator fits any line.
    """
    texts = [line[:LONGEST_LINE] for _, line in lines]
    fitting = {
        separator: sum(map(ColumnReader(separator, multi_label=False).fits, texts))
        for separator in SEPARATORS
    }
    best = max(SEPARATORS, key=lambda separator: fitting[separator])
    if fitting[best] == 0:
        for (number, _), text in zip(lines, texts, strict=True):
            found = SUFFIX_AND_SEPARATOR.search(text)
            if found is not None and LETTER.search(text, found.end()):
                raise _class_name_error(f"{path}:{number}", text[found.end() :])
        raise ManifestError(
            f"{path}:1: cannot detect the separator of path and label in {texts[0][:80]!r}; "
            "write `path label`, with class indices from 0, or set data.separator (tried `::`, "
            "tab, comma, space)"
        )
    return best


def _class_name_error(where: str, label: str) -> ManifestError:
    return ManifestError(
        f"{where}: label {label.strip()[:80]!r} is not a class index; {INDEX_FOR_NAME}"
    )


def _is_plain_path(text: str) -> bool:
    """Return False for `a.mp4 1` and `a 163 1`, which are a path and columns."""
    last_two = text.split()[1:][-2:]
    numbers = len(last_two) == 2 and all(map(NUMBERS.fullmatch, last_two))
    return not numbers and SUFFIX_AND_SEPARATOR.search(text) is None
