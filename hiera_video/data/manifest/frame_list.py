"""Lists of videos stored as folders of frames.

MMAction2 writes one folder per line, and `""` for no label as PySlowFast does:

    k400_frames/abseiling/0347ZoDXyP0 300 0             frame_dir num_frames label

PySlowFast writes one picture per line:

    original_vido_id video_id frame_id path labels      (sic)
    74225 0 0 74225/74225_000001.jpg ""
    YSKX3 7 0 YSKX3/YSKX3-000001.jpg "92,147"
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from hiera_video.data.manifest.labels import LabelReader
from hiera_video.data.manifest.record import VIDEO_SUFFIXES, Label, Record, as_tuple
from hiera_video.errors import ManifestError
from hiera_video.utils.safe_paths import SafeRoot

logger = logging.getLogger(__name__)

FRAMES = re.compile(r"[0-9]{1,9}")
LABELS = re.compile(r'[0-9]{1,9}(?:;[0-9]{1,9})*;?|;|""')
PICTURE_COLUMNS = ["original_vido_id", "video_id", "frame_id", "path", "labels"]

Lines = Iterable[tuple[int, str]]
"""Numbers, from 1, and contents of the lines that are not blank."""


def is_folder_list(lines: Lines, *, multi_label: bool) -> bool:
    """Return True if every line is `frame_dir num_frames label` and none names a video file.

    Args:
        lines: The first lines.
        multi_label: Several columns may be labels: `frame_dir num_frames label label`.
    """
    for _, line in lines:
        columns = _split_folder_line(line, multi_label)
        if (
            columns is None
            or columns[0].lower().endswith(VIDEO_SUFFIXES)
            or (_ends_in_a_number(columns[0]) and not multi_label)
        ):
            return False
    return True


def is_picture_list(lines: Sequence[tuple[int, str]]) -> bool:
    """Return True if the first line is the header of PySlowFast's lists."""
    return lines[0][1].split() == PICTURE_COLUMNS


def _split_folder_line(line: str, multi_label: bool) -> tuple[str, str, str] | None:
    """Return the folder, its number of frames and its labels; None for another kind of line."""
    columns = line.split()
    count = 1
    while multi_label and count < len(columns) and LABELS.fullmatch(columns[-count - 1]):
        count += 1
    count = max(count - 1, 1)
    if len(columns) < count + 2 or (multi_label and line.startswith('"')):
        return None
    folder, frames, *labels = line.rsplit(None, count + 1)
    if FRAMES.fullmatch(frames) is None or not all(map(LABELS.fullmatch, labels)):
        return None
    return folder, frames, labels[0] if count == 1 else ";".join(labels)


def read_folder_list(
    path: Path, lines: Lines, root: SafeRoot, labels: LabelReader, *, multi_label: bool
) -> list[Record]:
    """Read a list of `frame_dir num_frames label` lines, one record per line."""
    records: list[Record] = []
    for number, line in lines:
        where = f"{path}:{number}"
        columns = _split_folder_line(line, multi_label)
        if columns is None:
            raise ManifestError(
                f"{where}: {line[:120]!r} is not `frame_dir num_frames label` as in the first "
                "lines; correct it"
            )
        folder, frames, label = columns
        if int(frames) == 0:
            raise ManifestError(
                f"{where}: num_frames is 0; remove the line or extract the frames again; if the 0 "
                "is a first frame (MMAction2's `frame_dir offset num_frames label`, VideoMAEv2's "
                "`frame_dir start total`), which is not supported, put the frames of each clip "
                "into a folder of its own and write `frame_dir num_frames label`"
            )
        records.append(
            Record(
                path=root.resolve(folder, where),
                label=labels.read(label, where),
                row=len(records),
                num_frames=int(frames),
            )
        )
    if len(records) > 1 and all(record.num_frames == 1 for record in records):
        logger.warning(
            "warning: %s: num_frames is 1 on every line; if the lines are VideoMAEv2's `frame_dir "
            'start total` for pre-training, write `frame_dir total ""`',
            path,
        )
    return records


@dataclass(slots=True)
class _PictureVideo:
    """The pictures of a video so far."""

    line: int
    """Number of its first line."""
    folder: str
    num_frames: int = 0
    labels: set[int] = field(default_factory=set)
    """The labels of all its frames."""


def read_picture_list(
    path: Path, lines: Lines, root: SafeRoot, labels: LabelReader, *, multi_label: bool
) -> list[Record]:
    """Read a list of pictures, one record per video.

    The pictures of a video must be listed in order and lie in one folder. If the list is
    multi-label (`multi_label`, or several labels in one line), a video has the labels of all its
    frames. Otherwise all its frames that have a label must have the same.
    """
    videos: dict[str, _PictureVideo] = {}
    has_several, problem = multi_label, ""
    for number, line in itertools.islice(lines, 1, None):
        where = f"{path}:{number}"
        columns = line.split()
        if len(columns) != len(PICTURE_COLUMNS):
            raise ManifestError(
                f"{where}: has {len(columns)} columns, the header {len(PICTURE_COLUMNS)}: "
                f'{" ".join(PICTURE_COLUMNS)}; write labels as "3,7", and "" for none'
            )
        name, _, frame, picture, text = columns
        folder = str(PurePosixPath(picture).parent)
        label = labels.read(_unquote(text, where), where)
        video = videos.get(name)
        if video is None:
            video = videos[name] = _PictureVideo(number, folder)
        if folder != video.folder:
            raise ManifestError(
                f"{where}: {picture!r} is not in the folder of the other frames of {name} "
                f"({video.folder}); put all frames of a video into one folder"
            )
        if frame != str(video.num_frames):
            raise ManifestError(
                f"{where}: frame_id {frame} of {name} follows {video.num_frames} others; list "
                "frames in order, from 0"
            )
        video.num_frames += 1
        if label is None:
            continue
        has_several |= isinstance(label, tuple)
        if not has_several and not problem and video.labels and label not in video.labels:
            problem = (
                f"{where}: {name} has label {label} here and {min(video.labels)} on earlier "
                "frames; set data.multi_label=true, which gives a video the labels of all its "
                "frames, or write one label for all"
            )
        video.labels.update(as_tuple(label))
    if problem and not has_several:
        raise ManifestError(problem)

    def label_of(video: _PictureVideo) -> Label:
        if not video.labels:
            return () if multi_label else None
        return tuple(sorted(video.labels)) if has_several else min(video.labels)

    return [
        Record(
            path=root.resolve(video.folder, f"{path}:{video.line}"),
            label=label_of(video),
            row=row,
            num_frames=video.num_frames,
        )
        for row, video in enumerate(videos.values())
    ]


def _ends_in_a_number(folder: str) -> bool:
    """Return True for `clip 3 12.5`: the line is then a video with a label and times."""
    last = folder.split()[1:][-1:]
    return bool(last) and re.fullmatch(r"[\d.;]+", last[0]) is not None


def _unquote(text: str, where: str) -> str | None:
    """Return `3;7` for `"3,7"`, and None for `""`."""
    inner = text.strip('"')
    if inner and re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9})*", inner) is None:
        raise ManifestError(
            f'{where}: labels {text} must be class indices joined by commas, like "3,7", or ""'
        )
    return inner.replace(",", ";") or None
