"""Draw videos, with the classes that a run predicts, or the reconstructions of pre-training.

hiera-video visualize input=videos/ output=sheet.png                     # frames of each video
hiera-video visualize input=videos/ output=sheet.png --run runs/x        # and its first class
hiera-video visualize input=videos/ output=masks.png --run runs/x_mae    # original, visible,
                                                                         # reconstructed frames
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hiera_video.cli.arguments import WHICH, command_parser, refuse_rest, single, split_paths
from hiera_video.utils.checks import require
from hiera_video.utils.extras import require_extra


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser("visualize", __doc__)
    add = parser.add_argument
    add(
        "paths",
        nargs="*",
        metavar="input=PATH | output=FILE.png",
        help="video, folder or list (may be repeated); the picture to write",
    )
    add("--run", metavar="DIR", help="out_dir of a run")
    add("--checkpoint", choices=WHICH, help="checkpoint of the run (best, else last)")
    add("--limit", type=int, default=12, metavar="N", help="draw the first N videos (12)")
    add("--follow-links", action="store_true", help="enter symbolic links to folders")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Check the arguments, then import torch, read the videos and write the picture."""
    arguments = make_parser().parse_intermixed_args(argv)
    inputs, outputs, rest = split_paths(arguments.paths)
    refuse_rest(rest, "give input=PATH and output=FILE.png")
    output = single(outputs, "output", "output=")
    require(bool(inputs), "input= is not set; name a video, a folder or a list")
    require(
        output is not None and Path(output).suffix.lower() == ".png",
        f"output={output or ''}: name a file that ends in .png",
    )
    require(arguments.limit >= 1, f"--limit {arguments.limit}: must be 1 or more")
    require(
        arguments.run is not None or arguments.checkpoint is None,
        f"--checkpoint {arguments.checkpoint}: needs --run",
    )
    require_extra("train")
    from hiera_video.workflows.predict import ModelSource, check_writable, find_videos, write_file

    check_writable(str(output))
    source = ModelSource(arguments.run, arguments.checkpoint) if arguments.run else None
    backend = source.backend() if source else "pyav"
    paths = find_videos(inputs, backend, follow_links=arguments.follow_links)[: arguments.limit]
    from hiera_video.workflows.visualize import reconstructions, video_sheet

    run = source.load() if source else None
    if run is not None and run.config.train.task == "pretrain":
        picture = reconstructions(run, paths)
    else:
        picture = video_sheet(paths, backend, run)
    write_file(str(output), picture)
    print(f"{output}: {len(paths)} videos")
    return 0
