"""Kinetics: a list (`path label` per line) and `labels.txt` from an annotation csv and clips.

    hiera-video prepare kinetics --csv annotations/train.csv --videos data/kinetics400/train
    hiera-video prepare kinetics --csv annotations/val.csv   --videos data/kinetics400/val

The csv has the header `label,youtube_id,time_start,time_end,split`. Clips are named
`<id>_<start>_<end>.mp4` (six digits) and lie in one folder, or in one folder per class. The list is
written beside the folder (`data/kinetics400/train.csv`), because it may only name videos below its
own folder. `labels.txt` beside the list gives the class indices: the first csv creates it in
alphabetical order, and all later ones use it, so that the splits agree.

    … --reencode data/kinetics400_256 --workers 16       copies that decode fast, and train.csv
    … --shards data/kinetics400_shards                   tar shards, and train.index.json
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from hiera_video.data.manifest.class_names import find_class_names, write_class_names
from hiera_video.data.prepare.cli import (
    make_prepare_parser,
    parse_arguments,
    reencode_and_shard,
    require_paths,
    write_list,
)
from hiera_video.errors import ManifestError
from hiera_video.utils.safe_paths import walk_folders
from hiera_video.utils.text_files import count_of

COLUMNS = ("label", "youtube_id", "time_start", "time_end")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the list of one split, then make its copies and shards."""
    parser = make_prepare_parser("kinetics", __doc__)
    parser.add_argument("--csv", type=Path, required=True, help="annotation file of one split")
    parser.add_argument("--videos", type=Path, required=True, help="folder of that split's clips")
    arguments = parse_arguments(parser, argv)
    videos = arguments.videos
    require_paths(arguments.csv, videos, dataset="kinetics")
    listing = videos.with_suffix(".csv")
    if listing.resolve() == arguments.csv.resolve():
        raise ManifestError(
            f"{listing}: is the output file; move the release's csv into another folder"
        )
    make_list(arguments.csv, videos, listing, follow_links=arguments.follow_links)
    reencode_and_shard(listing, videos.name, arguments, root=videos.parent)
    return 0


def make_list(
    annotations: Path, videos: Path, listing: Path, *, follow_links: bool = False
) -> None:
    """Write `listing`: the annotated clips that are in `videos`; create `labels.txt` if missing."""
    clips = read_clips(annotations)
    found = sorted({label for _, label in clips})
    names, labels_file = find_class_names(listing)
    if unknown := sorted(set(found) - set(found if names is None else names)):
        raise ManifestError(
            f"{annotations}: class '{unknown[0]}' is not in {labels_file}; "
            "remove that file to create it again"
        )
    index_of = {name: index for index, name in enumerate(found if names is None else names)}
    present = {
        name: Path(folder, name).relative_to(listing.parent)
        for folder, names in walk_folders(videos, lambda _: follow_links)
        for name in names
        if name.endswith(".mp4")
    }
    lines = [f"{present[name]} {index_of[label]}\n" for name, label in clips if name in present]
    if not lines:
        raise ManifestError(
            f"{videos}: contains none of the {count_of(len(clips), 'clip')} that {annotations} "
            "lists"
        )
    if names is None:
        write_class_names(listing.parent, found)
    write_list(listing, lines, listed=len(clips), num_classes=len(index_of))


def read_clips(path: Path) -> list[tuple[str, str]]:
    """Return the file name and label of each clip in an annotation csv."""
    clips = []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
        if missing:
            raise ManifestError(
                f"{path}: has no column {', '.join(missing)}; "
                f"the header must be {','.join(COLUMNS)},split"
            )
        for row in reader:
            start, end = row["time_start"], row["time_end"]
            if not all((text or "").strip().isdigit() for text in (start, end)):
                raise ManifestError(
                    f"{path}:{reader.line_num}: time_start {start} and time_end {end} must be "
                    "whole seconds; correct or remove the line"
                )
            name = f"{row['youtube_id']}_{int(start):06d}_{int(end):06d}.mp4"
            clips.append((name, row["label"]))
    return clips
