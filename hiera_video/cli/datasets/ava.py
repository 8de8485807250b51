"""AVA: lists of boxes and actions for train.task=detect, from its annotations and videos.

    hiera-video prepare ava --annotations data/ava/annotations --videos data/ava/videos

The annotations are the files of the release (`ava_train_v2.2.csv`, the excluded timestamps, the
action lists). The videos are files named as in the csv, or folders of extracted frames (jpg, 30 a
second), both of the 15 minutes from second 900 or of whole films. A person detector's boxes
(`ava_val_predicted_boxes.csv`, as PySlowFast distributes them) are read from the annotations'
folder or given with --train-boxes and --val-boxes.

Writes train.csv, val.csv, train_boxes.csv and val_boxes.csv beside the folder of the videos: the
lines of the videos that are there, without excluded key frames; and prints the configuration keys.

    … --detector-weights fasterrcnn_resnet50_fpn_coco-258fb6c6.pth

finds the persons of val.csv's key frames with a torchvision detector whose weights are on disk.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hiera_video.cli.arguments import command_parser
from hiera_video.data.prepare.cli import require_paths
from hiera_video.errors import ConfigError
from hiera_video.utils.text_files import count_of

SPLITS = ("train", "val")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the lists and print the keys that name them."""
    arguments = make_parser().parse_args(argv)
    require_paths(arguments.annotations, arguments.videos, dataset="ava")
    if arguments.detector_weights is not None and arguments.val_boxes is not None:
        raise ConfigError(
            f"--detector-weights {arguments.detector_weights}: finds the boxes that --val-boxes "
            "names; give one of them"
        )
    from hiera_video.data.prepare.ava import (
        AvaRelease,
        find_ava_videos,
        start_of_videos,
        write_ava_list,
    )

    release = AvaRelease(folder=arguments.annotations, version=arguments.version)
    present, folders = find_ava_videos(arguments.videos)
    out = arguments.videos.absolute().parent
    keys = [f"data.root={arguments.videos}", f"detect.label_map={release.label_map()}"]
    if folders:
        keys += ["data.decoder=frames"]
    if (counted := release.counted_map()) is not None:
        keys += [f"detect.eval_label_map={counted}"]
    for split in SPLITS:
        boxes = _boxes_file(arguments, split)
        for source, name in ((release.labelled(split), split), (boxes, f"{split}_boxes")):
            if source is None:
                continue
            target = out / f"{name}.csv"
            counts = write_ava_list(source, target, present, release.excluded(split))
            listed = counts.present + len(counts.missing)
            print(
                f"{target}: {count_of(counts.key_frames, 'key frame')} and "
                f"{count_of(counts.boxes, 'line')} of {counts.present} of "
                f"{count_of(listed, 'video')}; {count_of(counts.excluded, 'key frame')} excluded"
            )
            if name == split:
                keys += [f"data.{split}={target}"]
            else:
                keys += [f"detect.{'train_' if split == 'train' else ''}boxes={target}"]
    start = start_of_videos(arguments.videos, min(present), folders)
    keys += [f"detect.start_seconds={start}"]
    if arguments.detector_weights is not None:
        keys += [_find_persons(arguments, out, folders=folders, start=start)]
    print("use: hiera-video train --cfg ava_hiera_l \\\n  " + " \\\n  ".join(keys))
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser("prepare ava", __doc__)
    add = parser.add_argument
    add("--annotations", type=Path, required=True, help="folder of the release's csv files")
    add("--videos", type=Path, required=True, help="folder of videos, or of folders of frames")
    add("--version", default="2.2", help="version of the annotations (2.2)")
    add("--train-boxes", type=Path, metavar="CSV", help="a person detector's boxes for training")
    add("--val-boxes", type=Path, metavar="CSV", help="a person detector's boxes for tests")
    add(
        "--detector-weights",
        type=Path,
        metavar="PTH",
        help="weights of a torchvision detector, which finds the persons of val.csv's key frames",
    )
    add(
        "--detector",
        default="fasterrcnn_resnet50_fpn",
        metavar="NAME",
        help="torchvision's name of that detector (fasterrcnn_resnet50_fpn)",
    )
    return parser


def _boxes_file(arguments: argparse.Namespace, split: str) -> Path | None:
    given: Path | None = getattr(arguments, f"{split}_boxes")
    if given is not None:
        require_paths(given, dataset="ava")
        return given
    usual = Path(arguments.annotations) / f"ava_{split}_predicted_boxes.csv"
    replaced = split == "val" and arguments.detector_weights is not None
    return usual if usual.is_file() and not replaced else None


def _find_persons(arguments: argparse.Namespace, out: Path, *, folders: bool, start: int) -> str:
    """Write val_boxes.csv with a detector's boxes; return the key that names it."""
    from hiera_video.data.detection.manifest import BoxListOptions, read_box_list
    from hiera_video.data.prepare.ava import AvaRelease
    from hiera_video.data.prepare.person_boxes import find_persons, load_detector
    from hiera_video.video.options import FrameFolder

    detector = load_detector(arguments.detector, arguments.detector_weights)
    label_map = AvaRelease(folder=arguments.annotations, version=arguments.version).label_map()
    options = BoxListOptions(root=str(arguments.videos), folders=folders, label_map=str(label_map))
    manifest = read_box_list(out / "val.csv", options)
    target = out / "val_boxes.csv"
    backend = FrameFolder() if folders else "pyav"
    found = find_persons(detector, manifest, target, start_seconds=start, decoder=backend)
    print(f"{target}: {found} persons in {len(manifest.records)} key frames")
    return f"detect.boxes={target}"
