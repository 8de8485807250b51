"""Your own list or folder of videos → copies that are quick to read, tar shards, or both.

    python datasets/folder/prepare.py --videos videos/train --reencode videos_256 --shards shards --workers 8
    python datasets/folder/prepare.py --videos lists/train.csv --root /data --shards shards

Lists and folders need no preparation to be trained on; this makes reading them cheaper.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hiera_video.cli.run import run_tool
from hiera_video.data.prepare.cli import add_storage_options, store


def main() -> int:
    """Do what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--videos", type=Path, required=True, help="list or folder, whatever data.train takes"
    )
    parser.add_argument(
        "--root", help="folder that the list's paths start from; its own where unset"
    )
    parser.add_argument("--name", help="of the results; that of the list or folder where unset")
    add_storage_options(parser)
    arguments = parser.parse_args()
    if arguments.reencode is None and arguments.shards is None:
        parser.error("nothing to do: name a folder with --reencode, --shards or both")
    # a folder's copies keep its name, so that train/ and val/ can share a place
    root = arguments.videos.parent if arguments.root is None else Path(arguments.root)
    store(
        arguments.videos,
        arguments.name or arguments.videos.stem,
        arguments,
        root=root,
        paths_from=arguments.root,
    )
    return 0


if __name__ == "__main__":
    run_tool(main)
