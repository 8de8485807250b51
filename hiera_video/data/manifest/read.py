"""Which videos there are and what they show: lists, class folders and Something-Something's annotations. No torch.

    read_manifest("train.csv")            # `path label` a line; separator sniffed; labels.txt beside it names the classes
    read_manifest("videos/")              # videos/<class>/*.mp4, or *.mp4 alone (no labels)
    read_manifest("ssv2/train.json")      # with ssv2/labels.json, videos in ssv2/videos/
    read_manifest("train.index.json")     # tar shards (see shards.py), here or at a URL

A list's line is `path label [start_seconds end_seconds]`; several labels are joined by `;` (`a.mp4 3;7`); a line without
a label is a video without one. Lists of frame folders (MMAction2's, PySlowFast's) are told by their form. Every path
stays inside the root, links followed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from hiera_video.data.manifest.class_names import names_from_json
from hiera_video.data.manifest.list_file import read_list
from hiera_video.data.manifest.record import VIDEO_SUFFIXES, Label, Manifest, Record
from hiera_video.data.manifest.tar_index import is_index, read_index, read_remote_index
from hiera_video.errors import ManifestError
from hiera_video.utils.remote_files import is_url
from hiera_video.utils.safe_paths import SafeRoot
from hiera_video.utils.text_files import read_json

__all__ = ["Label", "Manifest", "Record", "read_manifest", "recipe_for"]

SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})

# words in a manifest's path -> the recipe that makes it
RECIPES = {
    "motion": "motion",
    "kinetics": "kinetics",
    "k400": "kinetics",
    "k600": "kinetics",
    "k700": "kinetics",
    "ssv2": "ssv2",
    "something": "ssv2",
    "ucf101": "ucf101_hmdb51",
    "hmdb51": "ucf101_hmdb51",
}


def read_manifest(
    source: str, *, root: str | None = None, separator: str | None = None
) -> Manifest:
    """Read a list, a folder or an annotation file. Relative paths start from `root`, else from the source's folder.

    `separator`: what divides a list's columns, where sniffing goes wrong. Raises `ManifestError` with file:line.
    """
    if is_url(source):
        return read_remote_index(source, root)
    path = Path(source)
    if root is not None and not is_url(root) and not Path(root).is_dir():
        raise ManifestError(f"data.root={root}: no such folder")
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise ManifestError(
            f"{source}: no such file or folder; {recipe_for(source)} tells how to make it"
        )
    if path.suffix.lower() in VIDEO_SUFFIXES:
        raise ManifestError(
            f"{source}: is a video, not a list of videos; pass the folder that it lies in"
        )
    is_json = path.suffix.lower() == ".json"
    content = read_json(path) if is_json else None
    if is_index(content):
        return read_index(source, content, root if root is not None else str(path.parent))
    if root is not None and is_url(root):
        raise ManifestError(
            f"data.root={root}: is a URL, which only the index of tar shards can have; {source} is none"
        )
    if is_json:
        return _read_annotations(path, content, root)
    return read_list(path, root, separator)


def recipe_for(source: str) -> str:
    """The README of the data set that a path's words point to."""
    folder = next((recipe for word, recipe in RECIPES.items() if word in source.lower()), "folder")
    return f"datasets/{folder}/README.md"


# -- folders -----------------------------------------------------------------------------------------------------------


def _read_folder(folder: Path) -> Manifest:
    """`folder/<class>/**/*.mp4`, classes in alphabetical order, or `folder/*.mp4` without labels."""
    confined = SafeRoot(folder)
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
    splits = [name for name in classes if name.lower() in SPLITS]
    if (
        classes
        and splits == classes
        and any(entry.is_dir() for name in classes for entry in os.scandir(folder / name))
    ):
        raise ManifestError(
            f"{folder}: holds {' and '.join(splits)}, each with folders of its own: splits rather than classes; name one of "
            f"them, {folder / splits[0]}"
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
    return Manifest(
        records=records, class_names=tuple(classes) or None, multi_label=False, source=str(folder)
    )


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


def _read_annotations(path: Path, entries: object, root: str | None) -> Manifest:
    """`[{"id", "template", …}, …]` with `labels.json` beside it; videos are `<id>.webm` or `<id>.mp4`."""
    if (
        not isinstance(entries, list)
        or not entries
        or not all(isinstance(e, dict) and "id" in e for e in entries)
    ):
        form = '[{"id": …, "template": …}, …]'
        raise ManifestError(
            f"{path}: is not of the form {form}, as Something-Something's annotations are"
        )
    folder = Path(root) if root is not None else path.parent / "videos"
    if not folder.is_dir():
        raise ManifestError(
            f"{folder}: no such folder; put the videos of {path.name} there or set data.root"
        )
    names_file = path.parent / "labels.json"
    if not names_file.is_file():
        raise ManifestError(
            f"{names_file}: no such file; {path.name} needs it beside it for the classes' indices"
        )
    names = names_from_json(names_file)
    index_of = {name: index for index, name in enumerate(names)}
    present = set(_videos_in(folder))
    confined = SafeRoot(folder)
    records = []
    for number, entry in enumerate(entries):
        where = f"{path}: entry {number}"
        label = None
        if "template" in entry:
            name = str(entry["template"]).replace("[", "").replace("]", "")
            if name not in index_of:
                raise ManifestError(
                    f"{where}: template {name!r} is not in {names_file}; correct one of the two"
                )
            label = index_of[name]
        video = str(entry["id"])
        file = next(
            (video + suffix for suffix in (".webm", ".mp4") if video + suffix in present),
            video + ".webm",
        )
        records.append(Record(path=confined.resolve(file, where), label=label, row=number))
    return Manifest(records=tuple(records), class_names=names, multi_label=False, source=str(path))
