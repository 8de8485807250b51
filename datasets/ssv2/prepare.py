"""Something-Something v2: quicker copies or shards of its videos, or a list of their frames.

    python datasets/ssv2/prepare.py --json data/ssv2/train.json --reencode data/ssv2_240 --shards data/ssv2_shards
    python datasets/ssv2/prepare.py --json data/ssv2/train.json --frames data/ssv2/frames

The release's WebM files need no preparation: they are read through `train.json` itself, with `labels.json` beside it.
`--reencode` and `--shards` take them from `videos/` beside the json. `--frames` is for videos taken apart: a video's
frames are `frames/<id>/`, however many there are. The list (`frame_dir num_frames label`) is written beside the json
(`data/ssv2/train_frames.txt`): train with data.decoder=frames, data.train=… and data.root= the folder of frames.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hiera_video.cli.run import run_tool
from hiera_video.data.prepare.cli import add_storage_options, store
from hiera_video.utils.atomic_files import write_atomic

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def main() -> int:
    """Do what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="annotations of one split")
    parser.add_argument("--frames", type=Path, help="folder of <id>/ folders of pictures")
    add_storage_options(parser)
    arguments = parser.parse_args()
    if arguments.frames is not None:
        list_frames(parser, arguments)
    elif arguments.reencode is None and arguments.shards is None:
        parser.error(
            "nothing to do: train.json is read as it is; see --reencode, --shards and --frames"
        )
    store(arguments.json, arguments.json.stem, arguments, root=arguments.json.parent)
    return 0


def list_frames(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Write the list; print how many of the annotated videos are there."""
    names_file = arguments.json.parent / "labels.json"
    for path in (arguments.json, names_file, arguments.frames):
        if not path.exists():
            parser.error(f"{path}: does not exist; see datasets/ssv2/README.md")
    index_of = {name: int(index) for name, index in json.loads(names_file.read_text()).items()}
    entries = json.loads(arguments.json.read_text())
    lines = []
    for entry in entries:
        if "template" not in entry:
            parser.error(
                f"{arguments.json}: {entry['id']} has no template, as in the release's test.json, and a list of frames needs "
                "labels; tools/predict.py answers for such a split's videos (--run RUN --csv FILE)"
            )
        name = str(entry["template"]).replace("[", "").replace("]", "")
        if name not in index_of:
            parser.error(
                f"{arguments.json}: template {name!r} of {entry['id']} is not in {names_file}"
            )
        folder = arguments.frames / str(entry["id"])
        if not folder.is_dir():
            continue
        count = sum(path.suffix.lower() in PICTURES for path in folder.iterdir())
        if count:
            lines.append(f"{entry['id']} {count} {index_of[name]}\n")
    if not lines:
        parser.error(
            f"{arguments.frames}: holds frames of none of the {len(entries)} videos that {arguments.json} lists"
        )
    listing = arguments.json.with_name(f"{arguments.json.stem}_frames.txt")
    write_atomic(listing, "".join(lines))
    print(f"{listing}: {len(lines)} of {len(entries)} videos are there, {len(index_of)} classes")


if __name__ == "__main__":
    run_tool(main)
