"""Lists of videos stored as folders of frames.

MMAction2 writes one folder per line, and `""` for no label as PySlowFast does:

    k400_frames/abseiling/0347ZoDXyP0 300 0             frame_dir num_frames label

PySlowFast writes one picture per line:

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
"""Line numbers, from 1, and contents."""


def is_folder_list(lines: Lines) -> bool:
    """Return True if every line is `frame_dir num_frames label` and none names a video file."""
    for _, line in lines:
        match = FOLDER_LINE.fullmatch(line.strip())
        if (
            match is None
            or match["folder"].lower().endswith(VIDEO_SUFFIXES)
            or _ends_in_a_number(match["folder"])
        ):
            return False
    return True


def is_picture_list(lines: Lines) -> bool:
    """Return True if the first line is the header of PySlowFast's lists."""
    return lines[0][1].split() == PICTURE_COLUMNS


def read_folder_list(path: Path, lines: Lines, root: SafeRoot) -> list[Record]:
    """Read a list of `frame_dir num_frames label` lines, one record per line."""
    records: list[Record] = []
    for number, line in lines:
        match = FOLDER_LINE.fullmatch(line.strip())
        if match is None:
            raise ManifestError(
                f"{path}:{number}: {line[:120]!r} is not `frame_dir num_frames label` as in the "
                "first lines; correct it"
            )
        if int(match["frames"]) == 0:
            raise ManifestError(
                f"{path}:{number}: num_frames is 0; remove the line or extract the frames again"
            )
        record = Record(
            path=root.resolve(match["folder"], f"{path}:{number}"),
            label=None if match["labels"] == NO_LABEL else _parse_label(match["labels"]),
            row=len(records),
            num_frames=int(match["frames"]),
        )
        records.append(record)
    return records


def read_picture_list(path: Path, lines: Lines, root: SafeRoot) -> list[Record]:
    """Read a list of pictures, one record per video.

    The pictures of a video must be listed in order and lie in one folder.
    """
    videos: dict[str, tuple[int, str, Label, int]] = {}
    """Video → number of its first line, folder, label, pictures so far."""
    for number, line in lines[1:]:
        where = f"{path}:{number}"
        columns = line.strip().split()
        if len(columns) != len(PICTURE_COLUMNS):
            raise ManifestError(
                f"{where}: has {len(columns)} columns, the header {len(PICTURE_COLUMNS)}: "
                f'{" ".join(PICTURE_COLUMNS)}; write labels as "3,7", and "" for none'
            )
        video, _, frame, picture, labels = columns
        folder = str(PurePosixPath(picture).parent)
        new = (number, folder, _parse_quoted_labels(labels, where), 0)
        first, known_folder, label, count = videos.setdefault(video, new)
        if folder != known_folder:
            raise ManifestError(
                f"{where}: {picture!r} is not in the folder of the other frames of {video} "
                f"({known_folder}); put all frames of a video into one folder"
            )
        if frame != str(count):
            raise ManifestError(
                f"{where}: frame_id {frame} of {video} follows {count} others; list frames in "
                "order, from 0"
            )
        videos[video] = (first, folder, label, count + 1)
    return [
        Record(
            path=root.resolve(folder, f"{path}:{number}"), label=label, row=row, num_frames=count
        )
        for row, (number, folder, label, count) in enumerate(videos.values())
    ]


def _ends_in_a_number(folder: str) -> bool:
    """Return True for `clip 3 12.5`: the line is then a video with a label and times."""
    last = folder.split()[1:][-1:]
    return bool(last) and re.fullmatch(r"[\d.;]+", last[0]) is not None


def _parse_label(text: str) -> Label:
    if ";" not in text:
        return int(text)
    return tuple(sorted({int(part) for part in text.split(";") if part}))


def _parse_quoted_labels(text: str, where: str) -> Label:
    inner = text.strip('"')
    if inner == "":
        return None
    if re.fullmatch(r"\d{1,9}(,\d{1,9})*", inner) is None:
        raise ManifestError(
            f'{where}: labels {text} must be class indices joined by commas, like "3,7", or ""'
        )
    return _parse_label(inner.replace(",", ";"))
