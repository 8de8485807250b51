"""Kinetics' annotation csv and a folder of clips → our manifest (`path label` a line) and `labels.txt`.

    python datasets/kinetics/prepare.py --csv annotations/train.csv --videos data/kinetics400/train
    python datasets/kinetics/prepare.py --csv annotations/val.csv   --videos data/kinetics400/val

The csv has the header `label,youtube_id,time_start,time_end,split`; clips are `<id>_<start>_<end>.mp4` (six digits),
in one folder or in one folder a class. The manifest is written beside the folder (`data/kinetics400/train.csv`), because
manifests may only name videos below their own place. The class index is the place in `labels.txt` beside the manifest:
made from the first csv in alphabetical order, used as it is afterwards, so that all splits agree.

    … --reencode data/kinetics400_256 --workers 16       copies that are quick to read, train.csv beside them
    … --shards data/kinetics400_shards                   tar shards and train.index.json
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from hiera_video.cli.run import run_tool
from hiera_video.data.prepare.cli import add_storage_options, store
from hiera_video.utils.atomic_files import write_atomic

COLUMNS = ("label", "youtube_id", "time_start", "time_end")


def main() -> int:
    """Write the manifest; print how many of the listed clips are there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--csv", type=Path, required=True, help="annotation file of one split")
    parser.add_argument("--videos", type=Path, required=True, help="folder of that split's clips")
    add_storage_options(parser)
    arguments = parser.parse_args()
    for path in (arguments.csv, arguments.videos):
        if not path.exists():
            parser.error(
                f"{path}: does not exist; see datasets/kinetics/README.md for where it comes from"
            )
    with arguments.csv.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
        if missing:
            parser.error(
                f"{arguments.csv}: has no column {', '.join(missing)}; its header must be {','.join(COLUMNS)},split"
            )
        rows = []
        for row in reader:
            if not all((row[name] or "").strip().isdigit() for name in ("time_start", "time_end")):
                parser.error(
                    f"{arguments.csv}:{reader.line_num}: time_start {row['time_start']} and time_end {row['time_end']} must be "
                    "whole seconds; mend the line, or take it out"
                )
            rows.append(row)
    root, manifest = arguments.videos.parent, arguments.videos.with_suffix(".csv")
    if manifest.resolve() == arguments.csv.resolve():
        parser.error(
            f"{manifest}: is where the manifest goes; move the release's csv into another folder"
        )
    labels, found = root / "labels.txt", sorted({row["label"] for row in rows})
    names = labels.read_text(encoding="utf-8").splitlines() if labels.exists() else found
    unknown = sorted(set(found) - set(names))
    if unknown:
        parser.error(
            f"{arguments.csv}: class '{unknown[0]}' is not in {labels}; remove that file to remake it"
        )
    index_of = {name: index for index, name in enumerate(names)}
    present = {
        path.name: path.relative_to(root) for path in sorted(arguments.videos.rglob("*.mp4"))
    }
    wanted = [(clip_name(row), row["label"]) for row in rows]
    lines = [f"{present[name]} {index_of[label]}\n" for name, label in wanted if name in present]
    if not lines:
        parser.error(
            f"{arguments.videos}: holds none of the {len(wanted)} clips that {arguments.csv} lists"
        )
    if not labels.exists():
        write_atomic(labels, "".join(f"{name}\n" for name in names))
    write_atomic(manifest, "".join(lines))
    print(f"{manifest}: {len(lines)} of {len(wanted)} listed clips are there, {len(names)} classes")
    store(manifest, arguments.videos.name, arguments, root=root)
    return 0


def clip_name(row: dict[str, str]) -> str:
    """File name of a clip in the release."""
    return f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}.mp4"


if __name__ == "__main__":
    run_tool(main)
