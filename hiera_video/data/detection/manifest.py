"""Read lists of boxes in AVA's form. No torch.

    video,second,x1,y1,x2,y2,action,person       what people labelled; one line for each action
    video,second,x1,y1,x2,y2,action,score        what a person detector found
    video,second,x1,y1,x2,y2,score

Boxes are shares of the frame, from 0 to 1. `video` is a path, with or without its suffix; `second`
any number; `action` the id or the name of a class, or empty. Lines of one video and second make a
key frame, and lines of one box and person make its labels. `video,second` alone is a key frame
without boxes.
"""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hiera_video.data.detection.box_classes import BoxClasses, find_box_classes
from hiera_video.data.detection.key_frame import BoxManifest, KeyFrame
from hiera_video.data.detection.video_names import VideoNames
from hiera_video.errors import ManifestError
from hiera_video.utils.collector import collector_paused
from hiera_video.utils.text_files import count_of, read_lines, shorten

logger = logging.getLogger(__name__)
EDGES = ("x1", "y1", "x2", "y2")
ROUNDING = 0.002
"""Detectors' boxes may exceed the frame by this much; they are clipped to it."""
LABELLED_COLUMNS, SCORED_COLUMNS = (2, 7, 8), (2, 6, 7, 8, 9)
LABELLED_FORM = "video,second,x1,y1,x2,y2,action[,person]"
SCORED_FORM = "video,second,x1,y1,x2,y2[,action[,person]][,score]"


@dataclass(frozen=True, kw_only=True)
class BoxListOptions:
    """Reading options of a list of boxes."""

    root: str | None = None
    """Folder of the videos; None: that of the list, and its folder `videos`."""
    label_map: str | None = None
    """Classes: a `.pbtxt`, `.txt` or `.json` file; None: the one beside the list."""
    excluded: str | None = None
    """File of `video,second` lines whose key frames are left out; None: none are. Its videos are
    named as those of a list."""
    follow_links: bool = False
    """Let symbolic links lead out of the root."""
    folders: bool = False
    """Videos are folders of pictures."""
    boxes_alone: bool = False
    """Ignore what stands behind the box: action, person, score."""


class _Row(NamedTuple):
    """One line of a list; a frozen dataclass would take a second more for AVA's."""

    where: str
    video: str
    second: float
    box: tuple[float, ...] | None
    action: str
    person: str
    score: float


@dataclass
class _Moment:
    """The rows of one video and second, gathered by box and person."""

    first: _Row
    boxes: dict[tuple[tuple[float, ...], str], set[int]] = field(default_factory=dict)
    scores: list[float] = field(default_factory=list)


def read_box_list(path: Path, options: BoxListOptions) -> BoxManifest:
    """Read boxes with their actions.

    Raises:
        ManifestError: A line is wrong; the message starts with `file:line`.
    """
    with collector_paused():
        return _read(path, options, scored=False, min_score=-math.inf)


def read_scored_boxes(path: Path, options: BoxListOptions, *, min_score: float) -> BoxManifest:
    """Read the boxes of a detector, of which those below `min_score` are left out.

    A box without a score has 1. The classes are those of the labelled list; a list without actions
    needs none.

    Raises:
        ManifestError: A line is wrong; the message starts with `file:line`.
    """
    with collector_paused():
        return _read(path, options, scored=True, min_score=min_score)


def _read(path: Path, options: BoxListOptions, *, scored: bool, min_score: float) -> BoxManifest:
    if not path.is_file():
        raise ManifestError(f"{path}: no such file; write lines of {LABELLED_FORM}")
    root = Path(options.root) if options.root is not None else path.parent
    if not root.is_dir():
        raise ManifestError(f"data.root={root}: no such folder; set it to that of the videos")
    videos = VideoNames(root, follow_links=options.follow_links, folders=options.folders)
    classes: BoxClasses | None = None
    excluded = _Excluded(options.excluded, videos)
    moments: dict[tuple[str, float], _Moment] = {}
    known: dict[str, int] = {}
    for row in _rows(path, scored=scored, boxes_alone=options.boxes_alone):
        if excluded.has(row.video, row.second) or row.score < min_score:
            continue
        key = (videos.find(row.video, row.where), row.second)
        if excluded.has(*key):  # named with the suffix in one file and without it in the other
            continue
        moment = moments.setdefault(key, _Moment(row))
        if row.box is None:
            continue
        if row.action and row.action not in known:
            classes = classes or find_box_classes(path, options.label_map)
            known[row.action] = classes.index(row.action, row.where)
        box = (row.box, row.person)
        if box not in moment.boxes:
            moment.boxes[box] = set()
            moment.scores.append(row.score)
        if row.action:
            moment.boxes[box].add(known[row.action])
    if not moments:
        raise ManifestError(
            f"{path}: has no key frames{_why_empty(options, min_score)}; write lines of "
            f"{SCORED_FORM if scored else LABELLED_FORM}"
        )
    if not scored:  # boxes of a detector may lack any key frame
        excluded.warn_of_unused(path, {video for video, _ in moments})
    if classes is None and (not scored or options.label_map is not None):
        classes = find_box_classes(path, options.label_map)
    return BoxManifest(
        records=tuple(
            _key_frame(number, moment, videos, scored)
            for number, moment in enumerate(moments.values())
        ),
        class_names=classes.names if classes else None,
        class_ids=classes.ids if classes else (),
        multi_label=True,
        source=str(path),
    )


def _key_frame(number: int, moment: _Moment, videos: VideoNames, scored: bool) -> KeyFrame:
    boxes = np.array([box for box, _ in moment.boxes], np.float32).reshape(-1, 4)
    labels = tuple(tuple(sorted(found)) for found in moment.boxes.values())
    persons = tuple(person for _, person in moment.boxes)
    return KeyFrame(
        path=videos.find(moment.first.video, moment.first.where),
        label=tuple(sorted({index for found in labels for index in found})),
        row=number,
        video=moment.first.video,
        second=moment.first.second,
        boxes=boxes,
        labels=labels,
        persons=persons if any(persons) else (),
        scores=np.array(moment.scores, np.float32) if scored else None,
        where=moment.first.where,
    )


def _why_empty(options: BoxListOptions, min_score: float) -> str:
    reasons = [f"detect.excluded={options.excluded}"] if options.excluded else []
    reasons += [f"detect.min_score={min_score:g}"] if math.isfinite(min_score) else []
    return f" left by {' and '.join(reasons)}" if reasons else ""


class _Excluded:
    """The excluded key frames of a file: by the name of the video in it, and by its path.

    Raises:
        ManifestError: There is no such file, or a line is wrong.
    """

    def __init__(self, file: str | None, videos: VideoNames) -> None:
        self._file = file
        self._lines: dict[tuple[str, float], str] = {}
        """Name or path of the video, and second → the line as written."""
        self._paths: dict[str, str | None] = {}
        """Line → path of its video, None if there is none."""
        self._used: set[str] = set()
        if file is None:
            return
        if not Path(file).is_file():
            raise ManifestError(
                f"detect.excluded={file}: no such file; write `video,second` lines, or leave it "
                "unset"
            )
        for number, line in read_lines(Path(file)):
            where = f"{file}:{number}"
            columns = _columns(line)
            if len(columns) != 2 or not columns[0]:
                raise ManifestError(f"{where}: {shorten(line)} is not `video,second`; correct it")
            name, second = columns[0], _second(columns[1], where)
            self._paths[line] = path = videos.match(name)
            for video in {name, path or name}:
                self._lines[video, second] = line

    def has(self, video: str, second: float) -> bool:
        """Return True if the key frame of a video, by name or by path, is excluded."""
        line = self._lines.get((video, second))
        if line is not None:
            self._used.add(line)
        return line is not None

    def warn_of_unused(self, listing: Path, listed: set[str]) -> None:
        """Log how many lines match nothing: no video, or no key frame of a video that is listed.

        A video of the folder that is not listed may be one of another list.
        """
        unmatched = {None, *listed}
        unused = [
            line
            for line in dict.fromkeys(self._lines.values())
            if line not in self._used and self._paths[line] in unmatched
        ]
        if unused:
            logger.warning(
                "detect.excluded=%s: %s no key frame of %s, first %s",
                self._file,
                f"{count_of(len(unused), 'line')} {'match' if len(unused) > 1 else 'matches'}",
                listing,
                shorten(unused[0]),
            )


def _columns(line: str) -> list[str]:
    columns = line.split(",") if '"' not in line else next(csv.reader([line]))
    return [column.strip() for column in columns]


def _rows(path: Path, *, scored: bool, boxes_alone: bool) -> Iterator[_Row]:
    permitted = SCORED_COLUMNS if scored else LABELLED_COLUMNS
    for number, line in read_lines(path):
        where = f"{path}:{number}"
        columns = _columns(line)[: 6 if boxes_alone else None]
        if len(columns) not in permitted or not columns[0]:
            form = SCORED_FORM if scored else LABELLED_FORM
            raise ManifestError(
                f"{where}: {shorten(line)} has {len(columns)} columns; write {form}"
            )
        second = _second(columns[1], where)
        box = _box(columns[2:6], where) if len(columns) > 2 else None
        rest = columns[6:]
        score = _score(rest.pop(), where) if scored and rest else 1.0
        action, person = [*rest, "", ""][:2]
        yield _Row(
            where=where,
            video=columns[0],
            second=second,
            box=box,
            action=action,
            person=person,
            score=score,
        )


def _second(text: str, where: str) -> float:
    value = _number(text)
    if not 0 <= value < math.inf:
        header = "; remove a header line" if where.endswith(":1") else ""
        raise ManifestError(
            f"{where}: second {shorten(text)} is not a time: must be a number from 0{header}"
        )
    return value


def _box(texts: list[str], where: str) -> tuple[float, ...]:
    values = tuple(map(_number, texts))
    left, top, right, bottom = values
    if 0 <= left <= right <= 1 and 0 <= top <= bottom <= 1:  # as nearly all
        return values
    for name, text, value in zip(EDGES, texts, values):
        if not -ROUNDING <= value <= 1 + ROUNDING:  # NaN, too
            raise ManifestError(
                f"{where}: {name}={text} lies outside [0, 1]; boxes are shares of the frame: "
                "divide pixels by its width and height"
            )
    for low, high in ((0, 2), (1, 3)):
        if values[high] < values[low]:
            raise ManifestError(
                f"{where}: {EDGES[high]}={texts[high]} is below {EDGES[low]}={texts[low]}; write "
                "the left, top, right and bottom edge (not width and height)"
            )
    return tuple(min(max(value, 0.0), 1.0) for value in values)


def _score(text: str, where: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise ManifestError(
            f"{where}: score {shorten(text)} is not a number from 0 to 1; write {SCORED_FORM}"
        )
    return value


def _number(text: str) -> float:
    """Return the number that a text spells, NaN if none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
