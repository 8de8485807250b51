"""Folders of videos: `folder/<class>/**/*.mp4`, or `*.mp4` without labels.

A video may be a folder of numbered pictures, `folder/<class>/**/<video>/*.jpg`, if the caller says
so. Hidden files and folders are unfinished downloads or metadata, and are left out.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from hiera_video.data.manifest.record import VIDEO_SUFFIXES, Manifest, Record
from hiera_video.errors import ManifestError
from hiera_video.utils.safe_paths import SafeRoot, is_hidden, walk_folders
from hiera_video.video.options import FrameFolder

logger = logging.getLogger(__name__)
SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


def read_class_folders(folder: Path, root: SafeRoot, frames: FrameFolder | None) -> Manifest:
    """Read the videos of a folder, classes in alphabetical order.

    Args:
        folder: The folder.
        root: Where links may lead.
        frames: Videos are folders of pictures with these names; None: videos are files.

    Raises:
        ManifestError: The folder has no videos, or has some with a class and others without.
    """
    with os.scandir(folder) as entries:
        shown = [entry for entry in entries if not is_hidden(entry.name)]
    folders = sorted(entry.name for entry in shown if entry.is_dir())
    if frames is None:
        videos = sorted(e.name for e in shown if is_video(e.name) and not e.is_dir())
    else:
        videos = [
            name
            for name in folders
            if any(frames.is_frame(entry.name) for entry in _entries(folder / name))
        ]
    rest = sorted(set(folders).difference(videos))
    classes = [name for name in rest if any(_walk_videos(folder / name, root, frames))]
    _check_form(folder, root, frames, videos=videos, classes=classes, folders=folders)
    labelled: list[tuple[str, int | None]] = [(name, None) for name in videos]
    for index, name in enumerate(classes):
        paths = _walk_videos(folder / name, root, frames)
        labelled += [(os.path.relpath(path, folder), index) for path in paths]
    records = tuple(
        Record(path=root.resolve(name, str(folder)), label=label, row=row)
        for row, (name, label) in enumerate(labelled)
    )
    return Manifest(
        records=records, class_names=tuple(classes) or None, multi_label=False, source=str(folder)
    )


def is_video(name: str) -> bool:
    """Return True for the name of a video file."""
    return name.lower().endswith(VIDEO_SUFFIXES) and not is_hidden(name)


def picture_folders(folder: Path) -> Iterator[str]:
    """Yield the folders below `folder` that hold numbered pictures; links are not followed."""
    is_picture = FrameFolder().is_frame
    return (
        parent
        for parent, names in walk_folders(folder, lambda link: False)
        if any(map(is_picture, names))
    )


def _check_form(
    folder: Path,
    root: SafeRoot,
    frames: FrameFolder | None,
    *,
    videos: Sequence[str],
    classes: Sequence[str],
    folders: Sequence[str],
) -> None:
    if videos and classes:
        raise ManifestError(
            f"{folder}: contains videos ({videos[0]} …) and class folders ({classes[0]} …); "
            "use one form, not both"
        )
    splits = [name for name in classes if name.lower() in SPLITS]
    if (
        classes
        and splits == classes
        and any(entry.is_dir() for name in classes for entry in os.scandir(folder / name))
    ):
        raise ManifestError(
            f"{folder}: contains {' and '.join(splits)} with folders of their own, which are "
            f"splits rather than classes; pass one of them, {folder / splits[0]}"
        )
    if frames is not None:
        _check_frames(folder, root, frames, videos=videos, classes=classes)
        return
    if not videos and not classes:
        found = next(picture_folders(folder), None)
        if found is not None:
            raise ManifestError(
                f"{folder}: contains no videos, but folders of pictures ({found} …); "
                "data.decoder=frames reads those"
            )
        raise ManifestError(
            f"{folder}: contains no videos; put them into {folder}/<class>/, or directly into it "
            f"if they have no labels (known suffixes: {' '.join(VIDEO_SUFFIXES)})"
        )
    others = (name for name in folders if classes and name not in classes)
    left_out = [name for name in others if any(picture_folders(folder / name))]
    if left_out:
        logger.warning(
            "warning: %s: left out %s, which has pictures but no videos; data.decoder=frames reads "
            "folders of pictures",
            folder,
            ", ".join(left_out),
        )


def _check_frames(
    folder: Path,
    root: SafeRoot,
    frames: FrameFolder,
    *,
    videos: Sequence[str],
    classes: Sequence[str],
) -> None:
    """Fail if there are no frames, or if pictures hide the videos of a class."""
    if not videos and not classes:
        kind = f"data.frame_template={frames.template}" if frames.template else "numbered pictures"
        raise ManifestError(
            f"{folder}: contains no folders of {kind}, which data.decoder=frames reads; make them "
            f"as {folder}/<class>/<video>/00001.jpg"
        )
    for name in videos:
        below = [e.path for e in _entries(folder / name) if e.is_dir() and not is_hidden(e.name)]
        found = (video for path in below for video in _walk_videos(Path(path), root, frames))
        inner = next(found, None)
        if inner is not None:
            raise ManifestError(
                f"{folder / name}: contains pictures and a folder of pictures ({inner}), so it may "
                "be a video or a class; move one of them"
            )


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a folder; none of an unreadable one, as `os.walk` does."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        yield from entries


def _walk_videos(folder: Path, root: SafeRoot, frames: FrameFolder | None) -> Iterator[str]:
    """Yield the videos below a folder; links to folders must stay inside the root."""

    def holds_frames(names: Sequence[str]) -> bool:
        return frames is not None and any(map(frames.is_frame, names))

    for parent, names in walk_folders(
        folder, lambda link: bool(root.resolve(link, str(root.folder))), is_leaf=holds_frames
    ):
        if holds_frames(names):
            yield parent
        elif frames is None:
            yield from (os.path.join(parent, name) for name in names if is_video(name))  # noqa: PTH118 (a hot path)
