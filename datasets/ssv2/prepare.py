"""Something-Something v2 taken apart into frames → a list of frame folders (`frame_dir num_frames label`), labels.txt.

    python datasets/ssv2/prepare.py --json data/ssv2/train.json --frames data/ssv2/frames

Not needed for the release's WebM files: those are read through `train.json` itself. The annotations are `labels.json`
beside the json; a video's frames are `frames/<id>/`, however many there are. The list is written beside the json
(`data/ssv2/train_frames.txt`): train with data.decoder=frames, data.train=… and data.root= the folder of frames.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def main() -> int:
    """Write the list; print how many of the annotated videos are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="annotations of one split")
    parser.add_argument("--frames", type=Path, required=True, help="folder of <id>/ folders of pictures")
    arguments = parser.parse_args()
    names_file = arguments.json.parent / "labels.json"
    for path in (arguments.json, names_file, arguments.frames):
        if not path.exists():
            parser.error(f"{path}: does not exist; see datasets/ssv2/README.md")
    index_of = {name: int(index) for name, index in json.loads(names_file.read_text()).items()}
    entries = json.loads(arguments.json.read_text())
    lines = []
    for entry in entries:
        name = str(entry["template"]).replace("[", "").replace("]", "")
        if name not in index_of:
            parser.error(f"{arguments.json}: template {name!r} of {entry['id']} is not in {names_file}")
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
    partial = listing.with_suffix(".partial")
    partial.write_text("".join(lines))
    partial.replace(listing)
    print(f"{listing}: {len(lines)} of {len(entries)} videos are there, {len(index_of)} classes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
