"""Read lists of videos, class folders and Something-Something's annotations. No torch.

    read_manifest("train.csv")            # `path label` per line, class names in labels.txt
    read_manifest("videos/")              # videos/<class>/*.mp4, or *.mp4 without labels
    read_manifest("ssv2/train.json")      # with ssv2/labels.json, videos in ssv2/videos/
    read_manifest("train.index.json")     # tar shards (see tar_index.py), on disk or at a URL

Lines of a list are `path label [start_seconds end_seconds]`. `;` joins several labels
(`a.mp4 3;7`), and a line may have no label. Lists of frame folders (MMAction2's, PySlowFast's) are
recognised by their form. Every path stays inside the root, links followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hiera_video.data.manifest.class_folders import is_video, read_class_folders
from hiera_video.data.manifest.class_names import read_class_names
from hiera_video.data.manifest.list_file import ListOptions, read_list
from hiera_video.data.manifest.record import VIDEO_SUFFIXES, Manifest, Record
from hiera_video.data.manifest.tar_index import is_index, read_index, read_remote_index
from hiera_video.errors import ManifestError
from hiera_video.utils.remote_files import is_url
from hiera_video.utils.safe_paths import SafeRoot
from hiera_video.utils.text_files import read_json, shorten
from hiera_video.video.options import FrameFolder

DATASETS = {
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
"""Word in a manifest's path → data set of `hiera-video prepare` that explains how to make it."""


def read_manifest(
    source: str | Path,
    *,
    root: str | None = None,
    separator: str | None = None,
    multi_label: bool = False,
    follow_links: bool = False,
    frames: FrameFolder | None = None,
) -> Manifest:
    """Read the videos and labels of a list, a folder, an annotation file or a shard index.

    Args:
        source: Path of any of these; a shard index may be at a URL.
        root: Folder (or URL, for shards) that relative paths start from; None: the folder of the
            source. No video may lie outside it. For a folder of videos, links may also lead into
            it.
        separator: Separator of a list's columns; None: detected.
        multi_label: Read every column of a list after the path as a label.
        follow_links: Let symbolic links lead out of the root.
        frames: The videos of a folder are folders of pictures with these names. None: they are
            files.

    Returns:
        The records in the source's order, with class names where the source has them.

    Raises:
        ManifestError: The source is missing or has an error; the message starts with `file:line`.
    """
    if is_url(source):
        return read_remote_index(str(source), root)
    source = str(source)
    path = Path(source)
    if root is not None and not is_url(root) and not Path(root).is_dir():
        raise ManifestError(f"data.root={root}: no such folder")
    if path.is_dir():
        links = SafeRoot(path, targets=root, follow_links=follow_links)
        return read_class_folders(path, links, frames)
    if not path.is_file():
        raise ManifestError(
            f"{source}: no such file or folder; `{prepare_command(source)}` explains how to make it"
        )
    if path.suffix.lower() in VIDEO_SUFFIXES:
        raise ManifestError(
            f"{source}: is a video, not a list of videos; pass the folder that contains it"
        )
    is_json = path.suffix.lower() == ".json"
    content = read_json(path) if is_json else None
    if is_index(content):
        shards = root if root is not None else str(path.parent)
        return read_index(source, content, shards, follow_links=follow_links)
    if root is not None and is_url(root):
        raise ManifestError(
            f"data.root={root}: is a URL, which needs an index of tar shards; {source} is not one"
        )
    if is_json:
        annotations = require_annotations(path, content)
        if frames is not None:
            raise ManifestError(
                f"{path}: names videos, and data.decoder=frames reads folders of frames; make "
                f"their list with `hiera-video prepare ssv2 --json {path} --frames FOLDER`"
            )
        return _read_annotations(path, annotations, root, follow_links)
    options = ListOptions(
        root=root, separator=separator, multi_label=multi_label, follow_links=follow_links
    )
    return read_list(path, options)


def prepare_command(source: str) -> str:
    """Return the command that explains how to make the list or folder that a path names."""
    words = (dataset for word, dataset in DATASETS.items() if word in source.lower())
    return f"hiera-video prepare {next(words, 'folder')} --help"


# -- Something-Something's annotations ---------------------------------------------------------


def _read_annotations(
    path: Path, annotations: Sequence[dict[str, Any]], root: str | None, follow_links: bool
) -> Manifest:
    """Read `[{"id", "template", …}, …]`; class indices are in `labels.json` beside it."""
    folder = Path(root) if root is not None else path.parent / "videos"
    if not folder.is_dir():
        raise ManifestError(
            f"{folder}: no such folder; put the videos of {path.name} there or set data.root"
        )
    names_file = path.parent / "labels.json"
    if not names_file.is_file():
        raise ManifestError(
            f"{names_file}: no such file; {path.name} needs it for the class indices (some copies "
            "of Something-Something call it something-something-v2-labels.json: rename it)"
        )
    names = read_class_names(names_file)
    index_of = {name: index for index, name in enumerate(names)}
    present = {path.name for path in folder.iterdir() if is_video(path.name)}
    safe_root = SafeRoot(folder, follow_links=follow_links)
    records = []
    for row, entry in enumerate(annotations):
        where = f"{path}: entry {row}"
        label = None
        if "template" in entry:
            name = class_of_template(entry["template"])
            if name not in index_of:
                raise ManifestError(
                    f"{where}: template {shorten(name)} is not in {names_file}; "
                    "correct one of the two"
                )
            label = index_of[name]
        files = [f"{entry['id']}{suffix}" for suffix in (".webm", ".mp4")]
        file = next((name for name in files if name in present), files[0])
        records.append(Record(path=safe_root.resolve(file, where), label=label, row=row))
    return Manifest(records=tuple(records), class_names=names, multi_label=False, source=str(path))


def require_annotations(path: Path, entries: object) -> list[dict[str, Any]]:
    """Return `entries`, the JSON of `path`, if it has the form of Something-Something's releases.

    Raises:
        ManifestError: It has another form.
    """
    if (
        not isinstance(entries, list)
        or not entries
        or not all(
            isinstance(entry, dict)
            and type(entry.get("id")) in (str, int)
            and isinstance(entry.get("template", ""), str)
            for entry in entries
        )
    ):
        form = '[{"id": …, "template": …}, …]'
        raise ManifestError(
            f"{path}: is not of the form {form}, as Something-Something's annotations are"
            f"{_other_json(entries)}"
        )
    return entries


def _other_json(content: object) -> str:
    """Return the end of the message about a JSON file that is of another known form."""
    values = list(content.values()) if isinstance(content, dict) else []
    if values and all(type(value) in (str, int) for value in values):
        return "; it names the classes: leave it beside train.json, as labels.json, and pass that"
    if values and all(isinstance(value, dict) and "annotations" in value for value in values):
        return (
            "; for Kinetics, use the csv of the same split: `hiera-video prepare kinetics --csv "
            "train.csv --videos FOLDER`"
        )
    return ""


def class_of_template(template: str) -> str:
    """Return the class name of a Something-Something template: the same without brackets."""
    return template.replace("[", "").replace("]", "")
