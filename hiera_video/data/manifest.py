"""Which videos there are and what they show: lists, class folders and Something-Something's annotations. No torch.

    read_manifest("train.csv")            # `path label` a line; separator sniffed; labels.txt beside it names the classes
    read_manifest("videos/")              # videos/<class>/*.mp4, or *.mp4 alone (no labels)
    read_manifest("ssv2/train.json")      # with ssv2/labels.json, videos in ssv2/videos/

A list's line is `path label [start_seconds end_seconds]`; several labels are joined by `;` (`a.mp4 3;7`); a line without
a label is a video without one. Every path stays inside the root, links followed.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hiera_video.data.confine import Root
from hiera_video.errors import ManifestError

VIDEO_SUFFIXES = (
    *(".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".mpg", ".mpeg"),
    *(".ts", ".flv", ".wmv", ".3gp", ".gif", ".ogv"),
)
SEPARATORS = ("::", "\t", ",", " ")
CLASS_NAME_FILES = ("labels.txt", "labels.json")
SNIFFED_LINES = 200
LONGEST_LINE = 8192

# words in a manifest's path -> the recipe that makes it
RECIPES = {
    "motion": "motion",
    "kinetics": "kinetics",
    "k400": "kinetics",
    "k600": "kinetics",
    "k700": "kinetics",
    "ssv2": "ssv2",
    "something": "ssv2",
    "ucf": "ucf101_hmdb51",
    "hmdb": "ucf101_hmdb51",
}

Label = int | tuple[int, ...] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One video, or one stretch of it."""

    path: str
    """Absolute path, inside the manifest's root."""
    label: Label
    """Class index; a tuple of them where the manifest is multi-label; None where there is none."""
    row: int
    """Place in the manifest, from 0: what predictions are keyed by."""
    start_seconds: float | None = None
    """The record begins here; None: with the video."""
    end_seconds: float | None = None
    """The record ends before this; None: with the video."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All records of one list, folder or annotation file, in its order."""

    records: tuple[Record, ...]
    class_names: tuple[str, ...] | None
    """Names in index order, where the source has them."""
    multi_label: bool
    source: str
    """What was read, for messages."""

    @property
    def num_classes(self) -> int:
        """As many as there are names, else one more than the highest label, and so 0 where nothing has a label."""
        if self.class_names is not None:
            return len(self.class_names)
        return 1 + max((max(as_tuple(record.label), default=-1) for record in self.records), default=-1)

    def require_labels(self) -> None:
        """`ManifestError` naming the first record without a label: training to classify needs all of them."""
        for record in self.records:
            if record.label is None:
                raise ManifestError(
                    f"{self.source}: {record.path} has no label; write `path label` lines or put the videos into one "
                    "folder a class, or train with train.task=pretrain, which needs none"
                )


def as_tuple(label: Label) -> tuple[int, ...]:
    """The label's class indices: none, one or several."""
    return () if label is None else (label,) if isinstance(label, int) else label


def read_manifest(source: str, *, root: str | None = None, separator: str | None = None) -> Manifest:
    """Read a list, a folder or an annotation file. Relative paths start from `root`, else from the source's folder.

    `separator`: what divides a list's columns, where sniffing goes wrong. Raises `ManifestError` with file:line.
    """
    if "://" in source:
        raise ManifestError(f"{source}: is a URL, and manifests are read from disk; download it and the videos first")
    path = Path(source)
    if root is not None and not Path(root).is_dir():
        raise ManifestError(f"data.root={root}: no such folder")
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise ManifestError(f"{source}: no such file or folder; {recipe_for(source)} tells how to make it")
    if path.suffix.lower() in VIDEO_SUFFIXES:
        raise ManifestError(f"{source}: is a video, not a list of videos; pass the folder that it lies in")
    if path.suffix.lower() == ".json":
        return _read_annotations(path, root)
    return _read_list(path, root, separator)


def recipe_for(source: str) -> str:
    """The README of the data set that a path's words point to."""
    folder = next((recipe for word, recipe in RECIPES.items() if word in source.lower()), "folder")
    return f"datasets/{folder}/README.md"


# -- lists -------------------------------------------------------------------------------------------------------------


def _read_list(path: Path, root: str | None, separator: str | None) -> Manifest:
    lines = [(number, line) for number, line in enumerate(_text(path).split("\n"), 1) if line.strip()]
    if not lines:
        raise ManifestError(f"{path}: is empty; write one `path label` line a video")
    pattern = _line_pattern(
        separator or _sniff(path, [line.strip()[:LONGEST_LINE] for _, line in lines[:SNIFFED_LINES]])
    )
    confined = Root(root if root is not None else path.parent)
    names, names_from = _class_names_beside(path)
    records: list[Record] = []
    seen: dict[tuple[str, float | None, float | None], int] = {}
    for number, line in lines:
        where = f"{path}:{number}"
        if len(line) > LONGEST_LINE:
            raise ManifestError(f"{where}: {len(line)} characters in one line; is this a list of videos?")
        video, label, start, end = _parse_line(line.strip(), pattern, where)
        if names is not None:
            _check_known(label, len(names), where, names_from)
        full = confined.resolve(video, where)
        if (first := seen.setdefault((full, start, end), number)) != number:
            raise ManifestError(f"{where}: {video!r} stands on line {first} already; remove one of the two")
        record = Record(path=full, label=label, row=len(records), start_seconds=start, end_seconds=end)
        records.append(record)
    return _uniform(records, names, str(path))


def _uniform(records: list[Record], names: tuple[str, ...] | None, source: str) -> Manifest:
    """One `3;7` anywhere makes every label a tuple."""
    multi_label = any(isinstance(record.label, tuple) for record in records)
    if multi_label:
        records = [
            Record(
                path=record.path,
                label=None if record.label is None else as_tuple(record.label),
                row=record.row,
                start_seconds=record.start_seconds,
                end_seconds=record.end_seconds,
            )
            for record in records
        ]
    return Manifest(records=tuple(records), class_names=names, multi_label=multi_label, source=source)


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


def _parse_line(line: str, pattern: re.Pattern[str], where: str) -> tuple[str, Label, float | None, float | None]:
    match = pattern.fullmatch(line)
    if match is None:
        raise ManifestError(
            f"{where}: {line[:120]!r} is not `path label [start_seconds end_seconds]`; correct it or set data.separator"
        )
    video = match["quoted"] or match["path"] or match["plain"]
    start, end = (_seconds(match[name], where) for name in ("start", "end"))
    if start is not None and end is not None and not end > start:
        raise ManifestError(f"{where}: ends at {end:g} s, before it starts at {start:g} s; swap or correct the columns")
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
        raise ManifestError(f"{where}: time {text!r} must be seconds from the video's start, 0 or more")
    return value


def _check_known(label: Label, count: int, where: str, names_from: Path | None) -> None:
    for index in as_tuple(label):
        if index >= count:
            raise ManifestError(
                f"{where}: label {index} is too high: {names_from} names {count} classes, 0 to {count - 1}; "
                "correct the label or complete the names"
            )


# -- folders -----------------------------------------------------------------------------------------------------------


def _read_folder(folder: Path) -> Manifest:
    """`folder/<class>/**/*.mp4`, classes in alphabetical order, or `folder/*.mp4` without labels."""
    confined = Root(folder)
    videos = _videos_in(folder)
    classes = sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and not entry.name.startswith(".") and any(_walk(Path(entry.path)))
    )
    if videos and classes:
        raise ManifestError(
            f"{folder}: holds videos ({videos[0]} …) and class folders ({classes[0]} …); use one form, not both"
        )
    if not videos and not classes:
        raise ManifestError(
            f"{folder}: holds no videos; put them into {folder}/<class>/, or directly into it if they have no labels "
            f"(read are {' '.join(VIDEO_SUFFIXES)})"
        )
    labelled: list[tuple[str, int | None]] = [(name, None) for name in videos]
    for index, name in enumerate(classes):
        labelled += [(os.path.relpath(video, folder), index) for video in _walk(folder / name)]
    records = tuple(
        Record(path=confined.resolve(name, str(folder)), label=label, row=row)
        for row, (name, label) in enumerate(labelled)
    )
    return Manifest(records=records, class_names=tuple(classes) or None, multi_label=False, source=str(folder))


def _videos_in(folder: str | Path) -> list[str]:
    # hidden files are half-written ones, and what macOS leaves on foreign disks
    return sorted(
        entry.name
        for entry in os.scandir(folder)
        if not entry.name.startswith(".")
        and entry.name.lower().endswith(VIDEO_SUFFIXES)
        and not entry.is_dir(follow_symlinks=False)
    )


def _walk(folder: Path) -> Iterator[str]:
    for parent, folders, _ in os.walk(folder):
        folders.sort()
        yield from (os.path.join(parent, name) for name in _videos_in(parent))  # noqa: PTH118 (a hot path)


# -- Something-Something's annotations ---------------------------------------------------------------------------------


def _read_annotations(path: Path, root: str | None) -> Manifest:
    """`[{"id", "template", …}, …]` with `labels.json` beside it; videos are `<id>.webm` or `<id>.mp4`."""
    entries = _json(path)
    if not isinstance(entries, list) or not entries or not all(isinstance(e, dict) and "id" in e for e in entries):
        form = '[{"id": …, "template": …}, …]'
        raise ManifestError(f"{path}: is not of the form {form}, as Something-Something's annotations are")
    folder = Path(root) if root is not None else path.parent / "videos"
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder; put the videos of {path.name} there or set data.root")
    names_file = path.parent / "labels.json"
    if not names_file.is_file():
        raise ManifestError(f"{names_file}: no such file; {path.name} needs it beside it for the classes' indices")
    names = _names_from_json(names_file)
    index_of = {name: index for index, name in enumerate(names)}
    present = set(_videos_in(folder))
    confined = Root(folder)
    records = []
    for number, entry in enumerate(entries):
        where = f"{path}: entry {number}"
        label = None
        if "template" in entry:
            name = str(entry["template"]).replace("[", "").replace("]", "")
            if name not in index_of:
                raise ManifestError(f"{where}: template {name!r} is not in {names_file}; correct one of the two")
            label = index_of[name]
        video = str(entry["id"])
        file = next((video + suffix for suffix in (".webm", ".mp4") if video + suffix in present), video + ".webm")
        records.append(Record(path=confined.resolve(file, where), label=label, row=number))
    return Manifest(records=tuple(records), class_names=names, multi_label=False, source=str(path))


# -- class names -------------------------------------------------------------------------------------------------------


def _class_names_beside(path: Path) -> tuple[tuple[str, ...] | None, Path | None]:
    for name in CLASS_NAME_FILES:
        file = path.parent / name
        if file.is_file() and file != path:
            return (_names_from_json(file) if file.suffix == ".json" else _names_from_text(file)), file
    return None, None


def _names_from_text(path: Path) -> tuple[str, ...]:
    names = [line.strip() for line in _text(path).rstrip().split("\n")]
    for number, name in enumerate(names, 1):
        if not name:
            raise ManifestError(f"{path}:{number}: is empty; line i names class i - 1, without gaps")
        if (first := names.index(name) + 1) != number:
            raise ManifestError(f"{path}:{number}: class {name!r} stands on line {first} already; names must differ")
    return tuple(names)


def _names_from_json(path: Path) -> tuple[str, ...]:
    """`["a", "b"]` or Something-Something's `{"a": "0", "b": "1"}`."""
    content = _json(path)
    if isinstance(content, list):
        content = {name: index for index, name in enumerate(map(str, content))}
    try:
        by_index = {int(index): str(name) for name, index in content.items()} if isinstance(content, dict) else {}
    except (TypeError, ValueError):
        by_index = {}
    if not isinstance(content, dict) or not by_index or sorted(by_index) != list(range(len(content))):
        raise ManifestError(f"{path}: must be a list of names, or map each to its own index, from 0 without gaps")
    return tuple(by_index[index] for index in range(len(by_index)))


# -- files -------------------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")  # Windows programs put a mark before the first path
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ManifestError(f"{path}:{line}: is not UTF-8 text; save the file as UTF-8") from error
    if (position := text.find("\0")) >= 0:
        line = text.count("\n", 0, position) + 1
        raise ManifestError(f"{path}:{line}: holds a NUL character; is this a text file?")
    return text.replace("\r\n", "\n")


def _json(path: Path) -> object:
    try:
        return json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise ManifestError(f"{path}:{error.lineno}: is not JSON ({error.msg}); make the file anew") from error
    except RecursionError as error:
        raise ManifestError(f"{path}: is nested too deeply to be an annotation file") from error
