"""Copies that decode fast, tar shards, or both, of your own list or folder of videos.

    hiera-video prepare folder --videos videos/train --reencode videos_256 --workers 8
    hiera-video prepare folder --videos lists/train.csv --root /data --shards shards

Lists and folders need no preparation for training; this makes reading them cheaper.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hiera_video.data.prepare.cli import make_prepare_parser, parse_arguments, reencode_and_shard
from hiera_video.utils.checks import require


def main(argv: Sequence[str] | None = None) -> int:
    """Make the copies and shards."""
    parser = make_prepare_parser("folder", __doc__)
    parser.add_argument(
        "--videos", type=Path, required=True, help="list or folder, as data.train takes it"
    )
    parser.add_argument("--root", help="folder that the list's paths start from (the list's own)")
    parser.add_argument("--name", help="name of the results (that of the list or folder)")
    arguments = parse_arguments(parser, argv)
    require(
        arguments.reencode is not None or arguments.shards is not None,
        "nothing to do: name a folder with --reencode, --shards or both",
    )
    # the copies' paths contain the folder's name, so that train/ and val/ can share a folder
    root = arguments.videos.parent if arguments.root is None else Path(arguments.root)
    name = arguments.name or arguments.videos.stem
    reencode_and_shard(arguments.videos, name, arguments, root=root, list_root=arguments.root)
    return 0
