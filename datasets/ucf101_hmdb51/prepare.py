"""UCF101's or HMDB51's split lists and class folders → our manifests (`path label` a line) and `labels.txt`.

    python datasets/ucf101_hmdb51/prepare.py --videos data/ucf101/videos --splits data/ucf101/ucfTrainTestlist --split 1
    python datasets/ucf101_hmdb51/prepare.py --videos data/hmdb51/videos --splits data/hmdb51/testTrainMulti_7030_splits --split 1

UCF101: `trainlist01.txt` (`Class/v_Class_g01_c01.avi 1`) and `testlist01.txt`. HMDB51: `<class>_test_split1.txt` with
`<file>.avi 1` for training, 2 for the test, 0 for neither. Writes `train_1.csv` and `test_1.csv` beside the folder.
`--reencode FOLDER` makes copies that are quick to read (the three splits share them), `--shards FOLDER` tar shards.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hiera_video.cli.run import run_tool
from hiera_video.data.prepare.cli import add_storage_options, store
from hiera_video.utils.atomic_files import write_atomic

HMDB_PARTS = {"1": "train", "2": "test"}


def main() -> int:
    """Write both manifests; print how many of the listed clips are there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=Path, required=True, help="folder of class folders")
    parser.add_argument("--splits", type=Path, required=True, help="folder of the split lists")
    parser.add_argument(
        "--split", type=int, required=True, choices=(1, 2, 3), help="which of the three"
    )
    add_storage_options(parser)
    arguments = parser.parse_args()
    for path in (arguments.videos, arguments.splits):
        if not path.is_dir():
            parser.error(
                f"{path}: no such folder; see datasets/ucf101_hmdb51/README.md for where it comes from"
            )
    ucf, hmdb = ucf101(arguments.splits, arguments.split), hmdb51(arguments.splits, arguments.split)
    listed = ucf or hmdb
    if listed is None:
        parser.error(
            f"{arguments.splits}: holds neither trainlist0{arguments.split}.txt (UCF101) nor "
            f"<class>_test_split{arguments.split}.txt (HMDB51)"
        )
    # UCF101's classInd.txt does not look at case: Hammering before HammerThrow
    classes = sorted(
        {path.split("/")[0] for paths in listed.values() for path in paths}, key=str.casefold
    )
    root = arguments.videos.parent
    there = {
        part: [path for path in paths if (arguments.videos / path).is_file()]
        for part, paths in listed.items()
    }
    for part, paths in listed.items():
        if not there[part]:
            parser.error(
                f"{arguments.videos}: holds none of the {len(paths)} clips of the {part} list, first {paths[0]}"
            )
    write_atomic(root / "labels.txt", "".join(f"{name}\n" for name in classes))
    for part, paths in there.items():
        manifest = root / f"{part}_{arguments.split}.csv"
        lines = [
            f"{arguments.videos.name}/{path} {classes.index(path.split('/')[0])}\n"
            for path in paths
        ]
        write_atomic(manifest, "".join(lines))
        print(
            f"{manifest}: {len(paths)} of {len(listed[part])} listed clips are there, {len(classes)} classes"
        )
    for part in listed:
        store(
            root / f"{part}_{arguments.split}.csv",
            f"{part}_{arguments.split}",
            arguments,
            root=root,
        )
    return 0


def ucf101(folder: Path, split: int) -> dict[str, list[str]] | None:
    """`Class/file` of each part, from UCF101's lists; None where they are not there."""
    files = {part: folder / f"{part}list{split:02d}.txt" for part in ("train", "test")}
    if not all(file.is_file() for file in files.values()):
        return None
    return {
        part: [line.split()[0] for line in file.read_text().splitlines() if line.strip()]
        for part, file in files.items()
    }


def hmdb51(folder: Path, split: int) -> dict[str, list[str]] | None:
    """The same from HMDB51's, one file a class."""
    ending = f"_test_split{split}.txt"
    files = sorted(folder.glob(f"*{ending}"))
    listed: dict[str, list[str]] = {"train": [], "test": []}
    for file in files:
        for line in file.read_text().splitlines():
            if line.strip():
                name, _, part = line.strip().rpartition(" ")
                if part in HMDB_PARTS:
                    listed[HMDB_PARTS[part]].append(
                        f"{file.name.removesuffix(ending)}/{name.strip()}"
                    )
    return listed if files else None


if __name__ == "__main__":
    run_tool(main)
