"""Check a data set before training: unreadable, short and duplicate videos, and the class order.

hiera-video check-data --train lists/train.csv --val lists/val.csv output=check
hiera-video check-data --train videos/train output=check --workers 8 --quick

Writes check.json, report.html, a list of each split's readable videos and, with --index,
packets.index. Exit code 3 if more than --max-broken of the videos are unreadable.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hiera_video.cli.arguments import command_parser, refuse_rest, single, split_paths
from hiera_video.cli.run import run_tool
from hiera_video.data.config import DataConfig
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.sampling import ClipConfig
from hiera_video.errors import ConfigError
from hiera_video.utils.checks import require
from hiera_video.utils.extras import require_extra

SPLITS = ("train", "val", "test")
OPTIONS = {
    "data.decoder": "--decoder",
    "data.deadline_seconds": "--deadline",
    "data.follow_links": "--follow-links",
    "data.index": "--index",
    "data.multi_label": "--multi-label",
    "data.root": "--root",
    "data.separator": "--separator",
    "data.workers": "--workers",
}
"""Key of the configuration → option that stands for it."""
OVER_LIMIT = 3
"""Exit code if too many videos are unreadable."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser("check-data", __doc__)
    add = parser.add_argument
    add("paths", nargs="*", metavar="output=DIR", help="folder for the results")
    for split in SPLITS:
        add(f"--{split}", metavar="MANIFEST", help="list, folder or annotations of that split")
    add("--out", metavar="DIR", help="the same as output=")
    add("--root", help="folder that relative paths start from (default: the manifest's own)")
    add("--separator", help="separator of path and label (default: detected)")
    add("--multi-label", action="store_true", help="every column after a path is a label")
    add("--follow-links", action="store_true", help="read videos behind links that leave the root")
    add("--decoder", default="pyav", choices=("pyav", "decord", "torchcodec", "frames"))
    add("--workers", type=int, default=2, help="processes; 0 reads in this one, without a deadline")
    add("--deadline", type=float, default=60.0, help="seconds before one video counts as hung")
    add("--quick", action="store_true", help="decode a few frames of each video instead of all")
    add("--index", action="store_true", help="write packets.index, to open long videos faster")
    add("--clip", default="16x4", metavar="TxS", help="videos shorter than this clip are short")
    add("--classes", metavar="FILE", help="class names in the right order; k400: Kinetics-400's")
    add("--max-broken", type=float, default=0.05, help="largest share of unreadable videos")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Validate the arguments, read the manifests and check the videos."""
    arguments = make_parser().parse_intermixed_args(argv)
    require_extra("train")
    inputs, outputs, rest = split_paths(arguments.paths)
    for word in rest:
        option = OPTIONS.get(word.partition("=")[0])
        require(option is None, f"{word}: use {option} instead")
    refuse_rest([*inputs, *rest], "name the lists with --train, --val and --test")
    out = single(outputs, "output", "--out", arguments.out)
    require(out is not None, "output= is not set; name a folder for the results")
    require(arguments.workers >= 0, f"--workers {arguments.workers}: must be 0 or more")
    data = DataConfig(
        root=arguments.root,
        separator=arguments.separator,
        multi_label=arguments.multi_label,
        follow_links=arguments.follow_links,
        decoder=arguments.decoder,
        workers=arguments.workers,
        deadline_seconds=arguments.deadline,
    )
    clip = parse_clip(arguments.clip)
    sources = {split: getattr(arguments, split) for split in SPLITS if getattr(arguments, split)}
    require(bool(sources), "nothing to check: pass a manifest with --train, --val or --test")
    require(
        not arguments.index or arguments.decoder == "pyav",
        f"--index needs --decoder pyav, not {arguments.decoder}; change one of them",
    )
    manifests = {
        split: read_manifest(source, **data.list_options) for split, source in sources.items()
    }

    from hiera_video.data.prepare.check import CheckOptions, check_splits  # imports torch

    options = CheckOptions(
        data=data,
        clip=clip,
        quick=arguments.quick,
        index_packets=arguments.index,
        classes=arguments.classes,
    )
    results = check_splits(manifests, Path(str(out)), options)
    limit = arguments.max_broken * results.num_videos
    return OVER_LIMIT if results.num_unreadable > limit else 0


def parse_clip(text: str) -> ClipConfig:
    """Parse `TxS`: frames × stride."""
    frames, _, stride = text.partition("x")
    if not (frames.isdigit() and stride.isdigit()):
        raise ConfigError(f"--clip {text}: must be frames x stride, like 16x4")
    return ClipConfig(num_frames=int(frames), frame_stride=int(stride))


if __name__ == "__main__":
    run_tool(main)
