"""Sources of videos: recordings whose parts must not be divided among training and test.

Videos have one source if they are segments of one file, if a column says so, if their names do
(`film_000010_000020.mp4`, `v_Archery_g01_c02.avi`), or if they show nearly the same pictures.
"""

from __future__ import annotations

import csv
import logging
import os
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path, PurePath

from hiera_video.data.manifest.record import Manifest
from hiera_video.errors import ConfigError, ManifestError
from hiera_video.utils.text_files import count_of, read_text, shorten

logger = logging.getLogger(__name__)

PATTERNS = (r"(.+?)[_-]0*(\d+)[_-]0*(\d+)", r"(.+_g\d+)_c\d+")
"""Names of segments: source, start and end; and source and clip, as in UCF101."""
LARGEST_SHARE = 0.5
"""Share of the videos above which a source that their names give is no source."""


def source_of_name(path: str, pattern: re.Pattern[str] | None = None) -> str | None:
    """Return the source that a video's name gives; None if it gives none.

    Args:
        path: Path of the video.
        pattern: Its first group is the source, anywhere in the path. None: `PATTERNS`.

    >>> source_of_name("a/film_000010_000020.mp4"), source_of_name("a/film_20_10.mp4")
    ('film', None)
    """
    if pattern is not None:
        found = pattern.search(path)
        return found[1] if found else None
    stem = PurePath(path).stem
    segment, clip = (re.fullmatch(known, stem) for known in PATTERNS)
    if segment and int(segment[2]) < int(segment[3]):
        return segment[1]
    return clip[1] if clip else None


def name_sources(paths: Sequence[str], pattern: str | None = None) -> list[str | None]:
    """Return the source that each name gives; names of one source for most videos are ignored.

    Args:
        paths: Paths of the videos.
        pattern: Regular expression with a group; None: the usual names of segments.

    Raises:
        ConfigError: `pattern` is not one, or matches no video.
    """
    expression = compile_pattern(pattern) if pattern is not None else None
    found = [source_of_name(path, expression) for path in paths]
    if expression is not None:
        if not any(source is not None for source in found):
            raise ConfigError(f"--source {pattern}: matches none of the paths, such as {paths[0]}")
        return found
    (name, count), *_ = Counter(filter(None, found)).most_common(1) or [("", 0)]
    if count > LARGEST_SHARE * len(paths):
        logger.warning(
            "warning: %d of %d names begin with %s: not taken as their source; --source names a "
            "pattern of your own",
            count, len(paths), shorten(name),
        )  # fmt: skip
        return [None] * len(paths)
    return found


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of `--source`.

    Raises:
        ConfigError: It is none, or has no group.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--source {pattern}: is not a regular expression: {error}") from error
    if not expression.groups:
        raise ConfigError(
            f"--source {pattern}: has no group; put the part that names the source into brackets, "
            r"like '/(cam\d+)_'"
        )
    return expression


def read_groups(file: Path, manifest: Manifest) -> list[str]:
    """Return the group of each video in a CSV file with the columns `path` and `group`.

    Args:
        file: Its paths start from its folder.
        manifest: The videos.

    Raises:
        ManifestError: A column is missing, or a video has no line.
    """
    if not file.is_file():
        raise ManifestError(f"--groups {file}: no such file; write a CSV file `path,group`")
    rows = csv.DictReader(read_text(file).splitlines())
    if not {"path", "group"} <= set(rows.fieldnames or ()):
        raise ManifestError(
            f"{file}:1: has the columns {', '.join(rows.fieldnames or ())}; needs `path` and "
            "`group`"
        )
    groups = {
        os.path.realpath(file.parent / row["path"]): row["group"] for row in rows if row["group"]
    }
    found = [groups.get(os.path.realpath(record.path)) for record in manifest.records]
    missing = [r.path for r, group in zip(manifest.records, found) if group is None]
    if missing:
        raise ManifestError(
            f"{file}: has no group for {len(missing)} of {count_of(len(found), 'video')}, such as "
            f"{missing[0]}; add a line for each"
        )
    return [str(group) for group in found]


def join_sources(
    columns: Sequence[Sequence[Hashable | None]], pairs: Iterable[tuple[int, int]] = ()
) -> list[int]:
    """Return the number of each video's source: the first video of that source.

    Args:
        columns: In each, videos with equal values are of one source; None says nothing.
        pairs: Positions of two videos of one source.

    >>> join_sources([["a", "b", "a", "c", "d"], [None, 1, 1, None, 2]], [(4, 3)])
    [0, 0, 0, 3, 3]
    """
    first = list(range(len(columns[0])))

    def root(index: int) -> int:
        while first[index] != index:
            first[index] = first[first[index]]
            index = first[index]
        return index

    def join(one: int, other: int) -> None:
        low, high = sorted((root(one), root(other)))
        first[high] = low

    for column in columns:
        known: dict[Hashable, int] = {}
        for index, value in enumerate(column):
            if value is not None:
                join(known.setdefault(value, index), index)
    for one, other in pairs:
        join(one, other)
    return [root(index) for index in range(len(first))]


def source_names(
    paths: Sequence[str],
    columns: Sequence[Sequence[Hashable | None]],
    pairs: Iterable[tuple[int, int]] = (),
) -> list[str]:
    """Return a name of each video's source, the same wherever the videos lie and in any order.

    Args:
        paths: Paths of the videos; those of one path are of one source.
        columns: As in `join_sources`.
        pairs: As in `join_sources`.

    >>> source_names(["/d/a.mp4", "/d/c.mp4", "/d/b.mp4"], [[None, 1, 1]])
    ['a.mp4', 'b.mp4', 'b.mp4']
    """
    root = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
    numbers = join_sources([paths, *columns], pairs)
    names: dict[int, str] = {}
    for number, path in zip(numbers, paths):
        name = os.path.relpath(path, root)
        names[number] = min(names.get(number, name), name)
    return [names[number] for number in numbers]
