r"""UCF101 and HMDB51: lists (`path label` per line) and `labels.txt` from the split files.

    hiera-video prepare ucf101_hmdb51 --split 1 \
        --videos data/ucf101/videos --splits data/ucf101/ucfTrainTestlist
    hiera-video prepare ucf101_hmdb51 --split 1 \
        --videos data/hmdb51/videos --splits data/hmdb51/testTrainMulti_7030_splits

UCF101's split files are `trainlist01.txt` (`Class/v_Class_g01_c01.avi 1`) and `testlist01.txt`.
HMDB51's are `<class>_test_split1.txt`, with `<file>.avi 1` for training, 2 for the test and 0 for
neither. The lists `train_1.csv` and `test_1.csv` are written beside the folder of videos.
`--reencode FOLDER` makes copies that decode fast, shared by the three splits; `--shards FOLDER`
makes tar shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hiera_video.data.manifest.class_names import write_class_names
from hiera_video.data.prepare.cli import (
    make_prepare_parser,
    parse_arguments,
    reencode_and_shard,
    require_paths,
    write_list,
)
from hiera_video.errors import ManifestError
from hiera_video.utils.text_files import count_of

HMDB51_PARTS = {"1": "train", "2": "test"}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the lists of a split, then make their copies and shards."""
    parser = make_prepare_parser("ucf101_hmdb51", __doc__)
    parser.add_argument("--videos", type=Path, required=True, help="folder of class folders")
    parser.add_argument("--splits", type=Path, required=True, help="folder of the split files")
    parser.add_argument("--split", type=int, required=True, choices=(1, 2, 3), help="split number")
    arguments = parse_arguments(parser, argv)
    videos, split = arguments.videos, arguments.split
    require_paths(videos, arguments.splits, dataset="ucf101_hmdb51")
    listed = read_ucf101(arguments.splits, split) or read_hmdb51(arguments.splits, split)
    if listed is None:
        raise ManifestError(
            f"{arguments.splits}: contains neither trainlist0{split}.txt (UCF101) nor "
            f"<class>_test_split{split}.txt (HMDB51)"
        )
    for listing in make_lists(videos, listed, split):
        reencode_and_shard(listing, listing.stem, arguments, root=videos.parent)
    return 0


def make_lists(videos: Path, listed: dict[str, list[str]], split: int) -> list[Path]:
    """Write `labels.txt` and the list of each part; return the lists."""
    root = videos.parent
    present = {
        part: [path for path in paths if (videos / path).is_file()]
        for part, paths in listed.items()
    }
    for part, paths in listed.items():
        if not present[part]:
            raise ManifestError(
                f"{videos}: contains none of the {count_of(len(paths), 'clip')} of the {part} "
                f"split, first {paths[0]}"
            )
    # UCF101's classInd.txt ignores case: Hammering before HammerThrow
    classes = sorted(
        {path.split("/")[0] for paths in listed.values() for path in paths}, key=str.casefold
    )
    index_of = {name: index for index, name in enumerate(classes)}
    write_class_names(root, classes)
    listings = []
    for part, paths in present.items():
        listings.append(root / f"{part}_{split}.csv")
        lines = [f"{videos.name}/{path} {index_of[path.split('/')[0]]}\n" for path in paths]
        write_list(listings[-1], lines, listed=len(listed[part]), num_classes=len(classes))
    return listings


def read_ucf101(folder: Path, split: int) -> dict[str, list[str]] | None:
    """Return `Class/file` of the clips of each part, or None if there are no UCF101 lists."""
    files = {part: folder / f"{part}list{split:02d}.txt" for part in ("train", "test")}
    if not all(file.is_file() for file in files.values()):
        return None
    return {
        part: [line.split()[0] for line in file.read_text().splitlines() if line.strip()]
        for part, file in files.items()
    }


def read_hmdb51(folder: Path, split: int) -> dict[str, list[str]] | None:
    """Return `class/file` of the clips of each part, or None if there are no HMDB51 lists."""
    suffix = f"_test_split{split}.txt"
    files = sorted(folder.glob(f"*{suffix}"))
    listed: dict[str, list[str]] = {"train": [], "test": []}
    for file in files:
        for line in file.read_text().splitlines():
            name, _, part = line.strip().rpartition(" ")
            if part in HMDB51_PARTS:
                listed[HMDB51_PARTS[part]].append(
                    f"{file.name.removesuffix(suffix)}/{name.strip()}"
                )
    return listed if files else None
