"""Search a feature store for windows that look like an example, by cosine similarity.

hiera-video search --store features/ input=example.mp4 output=found.png     # any video
hiera-video search --store features/ input=film.mp4 --at 12.5 --topk 20      # window at 12.5 s
hiera-video search --store features/ --path videos/a.mp4 output=found.csv    # video of the store
hiera-video search --store features/ --row 17 --row 40 --each-video-once     # by manifest row
hiera-video search --store features/ --list examples.txt output=found.json   # one path per line

Features of other videos are extracted with the store's model and settings. If its weights have
moved, --run gives their new place. Keys of data that change no features, such as
data.deadline_seconds=60, are accepted.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hiera_video.cli.arguments import command_parser, refuse_rest, set_outputs, split_paths
from hiera_video.cli.overrides import split_overrides
from hiera_video.errors import ConfigError
from hiera_video.utils.extras import require_extra
from hiera_video.utils.text_files import encode_json, encode_text, printable
from hiera_video.workflows.search import (
    COLUMNS,
    as_csv,
    as_json,
    decoder_of_store,
    find_examples,
    read_names,
    result_sheet,
    search,
    write_output,
)

OUTPUTS = {".csv": "csv", ".json": "json", ".png": "sheet"}
"""Suffix of `output=` → option."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser("search", __doc__)
    add = parser.add_argument
    add(
        "paths",
        nargs="*",
        metavar="input=VIDEO | output=FILE | key=value",
        help="an example; a file for the result: .csv, .json or .png; may be repeated",
    )
    add("--store", required=True, metavar="DIR", help="output of `hiera-video extract`")
    add("--video", action="append", default=[], metavar="FILE", help="the same as input=")
    add("--path", action="append", default=[], help="example: a video of the store, by its path")
    add("--row", action="append", default=[], type=int, help="example: by its manifest row")
    add("--list", metavar="FILE", help="text file with one example per line")
    add("--at", type=float, metavar="SECOND", help="use only the example's windows at this time")
    add("--topk", type=int, default=10, help="windows to find per example")
    add("--each-video-once", action="store_true", help="only the nearest window of each video")
    add("--run", metavar="DIR", help="run or file with the store's weights, if they have moved")
    add("--sheet", metavar="PNG", help="write a contact sheet; the same as output=x.png")
    add("--csv", metavar="FILE", help=f"write {','.join(COLUMNS)}")
    add("--json", metavar="FILE", help="write the same, one object per window")
    return parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    arguments = make_parser().parse_intermixed_args(argv)
    inputs, outputs, rest = split_paths(arguments.paths)
    arguments.overrides, rest = split_overrides(rest, "search", ("data",))
    refuse_rest(rest, "give examples as input=VIDEO")
    arguments.video = [*arguments.video, *inputs]
    set_outputs(arguments, outputs, OUTPUTS)
    if arguments.topk < 1:
        raise ConfigError(f"--topk {arguments.topk}: must be 1 or more")
    if not (arguments.video or arguments.path or arguments.row or arguments.list):
        raise ConfigError("no example: give input=VIDEO, --path, --row or --list")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Check the arguments before torch is imported, then search."""
    arguments = parse(argv)
    require_extra("features")
    with warnings_only("hiera_video", "faiss.loader"):
        return print_results(arguments)


@contextmanager
def warnings_only(*names: str) -> Iterator[None]:
    """Drop messages below a warning, so that the answer is printed alone."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def print_results(arguments: argparse.Namespace) -> int:
    """Search, print a line for each window and write the files."""
    listed = read_names(arguments.list) if arguments.list else []
    from hiera_video.features.store import FeatureStore

    store = FeatureStore(arguments.store)
    stored = (*arguments.path, *arguments.row)
    examples = find_examples(
        store,
        stored=stored,
        videos=arguments.video,
        listed=listed,
        run=arguments.run,
        overrides=arguments.overrides,
    )
    results = search(
        store, examples, arguments.topk, at=arguments.at, each_video_once=arguments.each_video_once
    )
    for result in results:
        seconds = f"{result.start_seconds:z.2f}–{result.end_seconds:.2f} s"
        print(
            f"{result.rank:>3}  {result.similarity:.4f}  {printable(result.path)}  {seconds}",
            flush=True,
        )
    if arguments.csv:
        write_output(arguments.csv, encode_text(as_csv(results)))
    if arguments.json:
        write_output(arguments.json, encode_json(as_json(results)))
    if arguments.sheet:
        write_output(arguments.sheet, result_sheet(results, decoder_of_store(store)))
    return 0
