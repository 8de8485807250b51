"""Something-Something v2: copies or shards of its videos, or a list of their frame folders.

    hiera-video prepare ssv2 --json data/ssv2/train.json --reencode data/ssv2_240
    hiera-video prepare ssv2 --json data/ssv2/train.json --shards data/ssv2_shards
    hiera-video prepare ssv2 --json data/ssv2/train.json --frames data/ssv2/frames

The release's WebM files need no preparation: `train.json` is read as it is, with `labels.json`
beside it. `--reencode` and `--shards` read the videos from `videos/` beside the json. `--frames` is
for extracted frames in `frames/<id>/`; it writes a list (`frame_dir num_frames label`) beside the
json, `data/ssv2/train_frames.txt`. Train with data.decoder=frames, data.train=<list> and
data.root=<folder of frames>.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hiera_video.data.manifest.class_names import read_class_names
from hiera_video.data.manifest.read import class_of_template, require_annotations
from hiera_video.data.prepare.cli import (
    make_prepare_parser,
    parse_arguments,
    reencode_and_shard,
    require_paths,
    write_list,
)
from hiera_video.errors import ManifestError
from hiera_video.utils.checks import require
from hiera_video.utils.text_files import count_of, read_json

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the list of frame folders, then make copies and shards."""
    parser = make_prepare_parser("ssv2", __doc__)
    parser.add_argument("--json", type=Path, required=True, help="annotations of one split")
    parser.add_argument("--frames", type=Path, help="folder of <id>/ folders of pictures")
    arguments = parse_arguments(parser, argv)
    annotations = arguments.json
    require(
        any(
            option is not None
            for option in (arguments.frames, arguments.reencode, arguments.shards)
        ),
        "nothing to do: train.json is read as it is; see --reencode, --shards and --frames",
    )
    if arguments.frames is not None:
        list_frame_folders(annotations, arguments.frames)
    reencode_and_shard(annotations, annotations.stem, arguments, root=annotations.parent)
    return 0


def list_frame_folders(annotations: Path, frames: Path) -> None:
    """Write the list of the annotated videos that have a folder of pictures in `frames`."""
    names_file = annotations.parent / "labels.json"
    require_paths(annotations, names_file, frames, dataset="ssv2")
    index_of = {name: index for index, name in enumerate(read_class_names(names_file))}
    entries = require_annotations(annotations, read_json(annotations))
    lines = []
    for entry in entries:
        if "template" not in entry:
            raise ManifestError(
                f"{annotations}: {entry['id']} has no template, as in the release's test.json, but "
                "a list of frames needs labels; to predict such a split, use "
                "hiera-video predict LIST --run RUN output=FILE.csv"
            )
        name = class_of_template(str(entry["template"]))
        if name not in index_of:
            raise ManifestError(
                f"{annotations}: template {name!r} of {entry['id']} is not in {names_file}"
            )
        folder = frames / str(entry["id"])
        pictures = folder.iterdir() if folder.is_dir() else ()
        if count := sum(path.suffix.lower() in PICTURES for path in pictures):
            lines.append(f"{entry['id']} {count} {index_of[name]}\n")
    if not lines:
        raise ManifestError(
            f"{frames}: contains frames of none of the {count_of(len(entries), 'video')} in "
            f"{annotations}"
        )
    listing = annotations.with_name(f"{annotations.stem}_frames.txt")
    write_list(listing, lines, listed=len(entries), num_classes=len(index_of))
