"""Lists of videos that were taken apart into frames: MMAction2's, a folder a line, and PySlowFast's, a picture a line.

k400_frames/abseiling/0347ZoDXyP0 300 0             frame_dir num_frames label ("" for none, as PySlowFast writes it)

original_vido_id video_id frame_id path labels      (sic)
74225 0 0 74225/74225_000001.jpg ""
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from hiera_video.data.manifest.record import VIDEO_SUFFIXES, Label, Record
from hiera_video.errors import ManifestError
from hiera_video.utils.safe_paths import SafeRoot

NO_LABEL = '""'
FOLDER_LINE = re.compile(
    r'(?P<folder>\S.*?)\s+(?P<frames>\d{1,9})\s+(?P<labels>\d{1,9}(?:;\d{1,9})*;?|"")'
)
PICTURE_COLUMNS = ["original_vido_id", "video_id", "frame_id", "path", "labels"]

Lines = list[tuple[int, str]]
"""Line number, from 1, and content."""


def names_folders(lines: Lines) -> bool:
    """Whether every line is `frame_dir num_frames label`: no video's name, and behind it a whole number and labels."""
    for _, line in lines:
        match = FOLDER_LINE.fullmatch(line.strip())
        if (
            match is None
            or match["folder"].lower().endswith(VIDEO_SUFFIXES)
            or _ends_in_a_number(match["folder"])
        ):
            return False
    return True


def names_pictures(lines: Lines) -> bool:
    """Whether the first line is the header of PySlowFast's lists."""
    return lines[0][1].split() == PICTURE_COLUMNS


def read_folders(path: Path, lines: Lines, confined: SafeRoot) -> list[Record]:
    """A record a line."""
    records: list[Record] = []
    for number, line in lines:
        match = FOLDER_LINE.fullmatch(line.strip())
        if match is None:
            raise ManifestError(
                f"{path}:{number}: {line[:120]!r} is not `frame_dir num_frames label`, as the first lines are; correct it"
            )
        if int(match["frames"]) == 0:
            raise ManifestError(
                f"{path}:{number}: num_frames is 0; remove the line or make the frames again"
            )
        record = Record(
            path=confined.resolve(match["folder"], f"{path}:{number}"),
            label=None if match["labels"] == NO_LABEL else _label(match["labels"]),
            row=len(records),
            num_frames=int(match["frames"]),
        )
        records.append(record)
    return records


def read_pictures(path: Path, lines: Lines, confined: SafeRoot) -> list[Record]:
    """A record for each run of lines of one video; its pictures must lie in one folder, all that it has."""
    videos: dict[str, tuple[int, str, Label, int]] = {}
    for number, line in lines[1:]:
        columns = line.strip().split()
        if len(columns) != len(PICTURE_COLUMNS):
            raise ManifestError(
                f"{path}:{number}: has {len(columns)} columns, the header {len(PICTURE_COLUMNS)}: "
                f'{" ".join(PICTURE_COLUMNS)}; write labels as "3,7", and "" for none'
            )
        name, _, frame, picture, labels = columns
        folder = str(PurePosixPath(picture).parent)
        first, known, label, count = videos.get(
            name, (number, folder, _quoted_label(labels, f"{path}:{number}"), 0)
        )
        if folder != known:
            raise ManifestError(
                f"{path}:{number}: {picture!r} lies in another folder than the frames of {name} before it ({known}); "
                "put all frames of a video into one"
            )
        if frame != str(count):
            raise ManifestError(
                f"{path}:{number}: frame_id {frame} of {name} follows {count} others; frames must be listed in order, "
                "from 0"
            )
        videos[name] = (first, known, label, count + 1)
    return [
        Record(
            path=confined.resolve(folder, f"{path}:{number}"),
            label=label,
            row=row,
            num_frames=count,
        )
        for row, (number, folder, label, count) in enumerate(videos.values())
    ]


def _ends_in_a_number(folder: str) -> bool:
    """`clip 3 12.5 20` is a video with a label and times, whatever its name."""
    last = folder.split()[1:][-1:]
    return bool(last) and re.fullmatch(r"[\d.;]+", last[0]) is not None


def _label(text: str) -> Label:
    if ";" not in text:
        return int(text)
    return tuple(sorted({int(part) for part in text.split(";") if part}))


def _quoted_label(text: str, where: str) -> Label:
    inner = text.strip('"')
    if inner == "":
        return None
    if re.fullmatch(r"\d{1,9}(,\d{1,9})*", inner) is None:
        raise ManifestError(
            f'{where}: labels {text} must be class indices joined by commas, like "3,7", or ""'
        )
    return _label(inner.replace(",", ";"))
