"""Windows of a feature store that look like an example, by cosine of their features.

python tools/search.py --store features/ --video example.mp4 --sheet found.png      # a video from anywhere
python tools/search.py --store features/ --video film.mp4 --at 12.5 --topk 20       # its window at 12.5 s alone
python tools/search.py --store features/ --path videos/a.mp4 --csv found.csv        # one of the store's, by path
python tools/search.py --store features/ --row 17 --row 40 --each-video-once        # by row of the manifest
python tools/search.py --store features/ --list examples.txt --json found.json      # a path a line, of either kind

Features of other videos are made as the store's were, with the weights that it names; --run says where these are now.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from hiera_video.cli.run import run_tool
from hiera_video.errors import ConfigError
from hiera_video.workflows.search import (
    as_csv,
    as_json,
    decoder_of_store,
    find_examples,
    read_names,
    search,
    sheet,
    write,
)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--store", required=True, metavar="DIR", help="output of tools/extract_features.py"
    )
    parser.add_argument(
        "--video", action="append", default=[], metavar="FILE", help="example: a video file"
    )
    parser.add_argument(
        "--path", action="append", default=[], help="example: a video of the store, by its path"
    )
    parser.add_argument(
        "--row", action="append", default=[], type=int, help="example: by its row in the manifest"
    )
    parser.add_argument("--list", metavar="FILE", help="text file with an example's path a line")
    parser.add_argument(
        "--at", type=float, metavar="SECOND", help="only the example's windows at this second count"
    )
    parser.add_argument("--topk", type=int, default=10, help="windows to find for each example")
    parser.add_argument(
        "--each-video-once", action="store_true", help="the nearest window of a video alone"
    )
    parser.add_argument(
        "--run", metavar="DIR", help="where the store's weights are now; default: where they were"
    )
    parser.add_argument("--sheet", metavar="PNG", help="write a contact sheet")
    parser.add_argument(
        "--csv",
        metavar="FILE",
        help="write example,rank,path,row,start_seconds,end_seconds,similarity",
    )
    parser.add_argument("--json", metavar="FILE", help="write the same, one object a window")
    arguments = parser.parse_args(argv)
    if arguments.topk < 1:
        raise ConfigError(f"--topk {arguments.topk}: must be 1 or more")
    if not (arguments.video or arguments.path or arguments.row or arguments.list):
        raise ConfigError("no example: give --video, --path, --row or --list")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Look at the arguments before torch is imported: a mistake must answer at once."""
    arguments = parse(argv)
    logging.getLogger("faiss.loader").setLevel(
        logging.WARNING
    )  # it tells which of its builds it tries
    listed = read_names(arguments.list) if arguments.list else []
    from hiera_video.features.store import FeatureStore

    store = FeatureStore(arguments.store)
    stored = (*arguments.path, *arguments.row)
    examples = find_examples(
        store, stored=stored, videos=arguments.video, listed=listed, run=arguments.run
    )
    rows = search(
        store, examples, arguments.topk, at=arguments.at, each_video_once=arguments.each_video_once
    )
    for row in rows:
        seconds = f"{row['start_seconds']:z.2f}–{row['end_seconds']:.2f} s"
        print(f"{row['rank']:>3}  {row['similarity']:.4f}  {row['path']}  {seconds}", flush=True)
    if arguments.csv:
        write(arguments.csv, as_csv(rows).encode())
    if arguments.json:
        write(arguments.json, as_json(rows).encode())
    if arguments.sheet:
        write(arguments.sheet, sheet(rows, decoder_of_store(store)))
    return 0


if __name__ == "__main__":
    run_tool(main)
