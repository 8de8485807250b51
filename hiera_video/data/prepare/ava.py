"""Lists of AVA from its release: lines of the videos that are there, no excluded key frames."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hiera_video.data.manifest.record import VIDEO_SUFFIXES
from hiera_video.errors import ManifestError
from hiera_video.utils.atomic_files import atomic_path
from hiera_video.utils.text_files import count_of, csv_field, read_lines
from hiera_video.video import open_video

CUT_START, CUT_SECONDS, CUT_FPS = 900, 901, 30
"""Second at which the annotated part of a film starts, its length, and the frame rate of frames
that were extracted from it."""
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, kw_only=True)
class AvaRelease:
    """The annotation files of a version of AVA."""

    folder: Path
    version: str

    def labelled(self, split: str) -> Path:
        """Return the file of labelled boxes."""
        return self._find(f"ava_{split}_v{self.version}.csv")

    def excluded(self, split: str) -> Path:
        """Return the file of excluded key frames."""
        return self._find(f"ava_{split}_excluded_timestamps_v{self.version}.csv")

    def label_map(self) -> Path:
        """Return the label map of all classes."""
        return self._find(f"ava_action_list_v{self.version}.pbtxt")

    def counted_map(self) -> Path | None:
        """Return the label map of the classes that count in mAP, or None if it is missing."""
        names = sorted(self.folder.glob(f"ava_action_list_v{self.version}_for_*.pbtxt*"))
        return names[0] if names else None

    def _find(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise ManifestError(
                f"{path}: no such file; unpack the annotations of AVA {self.version} into "
                f"{self.folder}, or name another folder or version"
            )
        return path


@dataclass(frozen=True, kw_only=True)
class AvaCounts:
    """What a list has of the lines of a release."""

    key_frames: int
    boxes: int
    """Lines: a box with several actions counts several times."""
    excluded: int
    """Key frames left out."""
    present: int
    """Videos of the list."""
    missing: tuple[str, ...]
    """Names of the videos that are not there."""


def find_ava_videos(folder: Path) -> tuple[set[str], bool]:
    """Return the names of the videos in a folder, without suffix, and if they are frame folders.

    Raises:
        ManifestError: There are neither videos nor folders of pictures.
    """
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir()) for entry in entries]
    files = {
        Path(name).stem
        for name, is_folder in found
        if not is_folder and name.lower().endswith(VIDEO_SUFFIXES)
    }
    if files:
        return files, False
    folders = {name for name, is_folder in found if is_folder and not name.startswith(".")}
    if not folders:
        raise ManifestError(
            f"{folder}: contains no videos and no folders of frames; put AVA's videos there, or "
            "the frames of each in a folder of its name"
        )
    return folders, True


def start_of_videos(folder: Path, name: str, is_folder: bool) -> int:
    """Return the second of the film at which a video starts: 900 if it was cut, else 0."""
    if is_folder:
        with os.scandir(folder / name) as entries:
            count = sum(entry.name.lower().endswith(PICTURE_SUFFIXES) for entry in entries)
        return CUT_START if count <= (CUT_SECONDS + 60) * CUT_FPS else 0
    path = next(path for path in sorted(folder.glob(f"{name}.*")) if path.stem == name)
    with open_video(path) as video:
        return CUT_START if video.info.duration_seconds <= CUT_SECONDS + 60 else 0


def write_ava_list(source: Path, target: Path, present: set[str], excluded: Path) -> AvaCounts:
    """Write the lines of `source` whose videos are there and whose key frames are not excluded.

    Args:
        source: Labelled or found boxes; each line starts with video and second.
        target: File to write.
        present: Names of the videos that are there.
        excluded: File of `video,second` lines.

    Raises:
        ManifestError: A line is not of AVA's form, or no line is left.
    """
    left_out = {_key(columns, where) for where, columns in _rows(excluded, lengths=(2,))}
    kept, dropped, missing = set[tuple[str, float]](), set[tuple[str, float]](), dict[str, None]()
    count = 0
    with atomic_path(target, shared=True) as partial, partial.open("w", encoding="utf-8") as file:
        for where, columns in _rows(source, lengths=(2, 7, 8)):
            key = _key(columns, where)
            if key[0] not in present:
                missing[key[0]] = None
            elif key in left_out:
                dropped.add(key)
            else:
                kept.add(key)
                count += len(columns) > 2
                file.write(",".join(map(csv_field, columns)) + "\n")
        if not kept:
            raise ManifestError(
                f"{source}: none of its {count_of(len(missing), 'video')} is there; the first is "
                f"{next(iter(missing), '?')}: name the folder of AVA's videos with --videos"
            )
    return AvaCounts(
        key_frames=len(kept),
        boxes=count,
        excluded=len(dropped),
        present=len({video for video, _ in kept}),
        missing=tuple(missing),
    )


def _rows(path: Path, *, lengths: tuple[int, ...]) -> Iterator[tuple[str, list[str]]]:
    for number, line in read_lines(path):
        columns = next(csv.reader([line]))
        where = f"{path}:{number}"
        if len(columns) not in lengths:
            form = "video,second" if lengths == (2,) else "video,second,x1,y1,x2,y2,action,person"
            raise ManifestError(
                f"{where}: has {len(columns)} columns, AVA's lines are {form}; download the file "
                "again"
            )
        yield where, columns


def _key(columns: list[str], where: str) -> tuple[str, float]:
    try:
        return columns[0], float(columns[1])
    except ValueError as error:
        raise ManifestError(
            f"{where}: second {columns[1]!r} is not a number; download the file again"
        ) from error
