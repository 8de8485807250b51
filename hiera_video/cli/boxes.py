"""Options of `predict --boxes`, which finds the actions in boxes of videos."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from hiera_video.cli.arguments import check_model_source, set_outputs
from hiera_video.utils.checks import require
from hiera_video.utils.extras import require_extra

OUTPUTS = {".csv": "csv", ".json": "json", ".mp4": "mp4"}
"""Suffix of `output=` → option."""


def add_box_options(parser: argparse.ArgumentParser) -> None:
    """Add the options, and the default of what `output=` sets."""
    add = parser.add_argument
    add(
        "--boxes",
        metavar="LIST",
        help="find the actions in boxes, lines of video,second,x1,y1,x2,y2; output= also writes "
        ".mp4, one video with its boxes drawn",
    )
    add(
        "--start-seconds",
        type=float,
        metavar="S",
        help="second of --boxes at which the videos start; default: 0 (AVA: 900)",
    )
    parser.set_defaults(mp4=None)


def wants_boxes(arguments: argparse.Namespace) -> bool:
    """Return True if the command line is about boxes.

    Raises:
        ConfigError: `--start-seconds` is given without `--boxes`.
    """
    start = arguments.start_seconds
    require(
        arguments.boxes is not None or start is None,
        f"--start-seconds {start}: goes with --boxes only",
    )
    return arguments.boxes is not None


def run_boxes(arguments: argparse.Namespace, outputs: Sequence[str]) -> int:
    """Check the arguments, then import torch and score the boxes.

    Args:
        arguments: The parsed command line of `predict`.
        outputs: Values of `output=`.
    """
    set_outputs(arguments, outputs, OUTPUTS)
    start = 0.0 if arguments.start_seconds is None else arguments.start_seconds
    _check(arguments, start)
    if arguments.mp4 is not None:
        require_extra("train")
    from hiera_video.workflows.predict import ModelSource
    from hiera_video.workflows.predict_boxes import predict_boxes

    return predict_boxes(
        arguments.boxes,
        ModelSource(arguments.run, arguments.checkpoint, overrides=arguments.overrides),
        videos=arguments.paths[0] if arguments.paths else None,
        start_seconds=start,
        topk=arguments.topk,
        follow_links=arguments.follow_links,
        files={kind: getattr(arguments, kind) for kind in OUTPUTS.values()},
    )


def _check(arguments: argparse.Namespace, start: float) -> None:
    boxes = arguments.boxes
    check_model_source(arguments)
    require(
        arguments.run is not None,
        f"--boxes {boxes}: needs --run DIR, a run of train.task=detect",
    )
    for option in ("webcam", "window", "step"):
        value = getattr(arguments, option)
        require(value is None, f"--{option} {value}: does not go with --boxes; remove one of them")
    require(
        len(arguments.paths) <= 1,
        f"--boxes {boxes}: takes one PATH, a video or the folder of the videos, not "
        f"{len(arguments.paths)}",
    )
    require(arguments.topk >= 1, f"--topk {arguments.topk}: must be 1 or more")
    require(math.isfinite(start), f"--start-seconds {start}: must be a number")
