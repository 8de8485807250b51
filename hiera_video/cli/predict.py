"""Predict the classes of videos with a trained model: files, folders, long videos, a camera.

hiera-video predict clip.mp4 folder/ list.csv --run runs/motion_hiera_micro
hiera-video predict film.mp4 --run runs/x --window 4 --step 2 output=out.csv output=out.json
hiera-video predict --webcam /dev/video0 --run runs/x --window 4 --step 1
hiera-video predict clip.mp4 --model hiera_base_16x224 --checkpoint mae_k400_ft_k400
hiera-video predict clip.mp4 --run runs/x test.clips=1 test.crops=1 data.decoder=decord

Prints one line for each video: the average over the views of the run's test (for published
weights 5×3, as the paper tests on Kinetics). With --window, prints one line for each segment of
that many seconds; `--window clip` is the length of the model's clip.

hiera-video predict film.mp4 --run runs/x --segments output=timeline.html output=film.eaf
hiera-video predict --run runs/x --choose-thresholds lists/val.csv

With --segments, prints when each class happens: the scores of sliding windows are smoothed, and a
segment is where those of a class reach its threshold. --choose-thresholds chooses the thresholds
on a list of labelled segments, for the predictions that follow.

hiera-video predict film.mp4 --run runs/detector --boxes boxes.csv output=out.csv output=out.mp4

With --boxes, prints the actions in each box of a list, with a run of train.task=detect.

Keys of test, data and clip override the run's configuration.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from hiera_video.cli.arguments import (
    add_model_source,
    check_model_source,
    command_parser,
    expand_globs,
    set_outputs,
    split_paths,
)
from hiera_video.cli.boxes import add_box_options, run_boxes, wants_boxes
from hiera_video.cli.overrides import split_overrides
from hiera_video.cli.run import run_tool
from hiera_video.cli.segments import add_segment_options, run_segments, wants_segments
from hiera_video.errors import ConfigError

OUTPUTS = {".csv": "csv", ".json": "json"}
"""Suffix of `output=` → option."""
TOPK = 5
OPTIONS = {"test.checkpoint": "--checkpoint", "data.follow_links": "--follow-links"}
"""Key → option that stands for it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Check the arguments, then import torch and predict; return the exit code."""
    arguments = make_parser().parse_intermixed_args(argv)  # options may stand between videos
    inputs, outputs, rest = split_paths(arguments.paths)
    sections = ("test", "data", "clip")
    arguments.overrides, rest = split_overrides(rest, "predict", sections, OPTIONS)
    arguments.paths = expand_globs([*rest, *inputs])
    if wants_segments(arguments):
        return run_segments(arguments, outputs)
    if arguments.topk is None:
        arguments.topk = TOPK
    if wants_boxes(arguments):
        return run_boxes(arguments, outputs)
    set_outputs(arguments, outputs, OUTPUTS)
    _check(arguments)
    window = arguments.window
    if window not in (None, "clip"):
        window = _seconds(window)
    from hiera_video.workflows.predict import (
        ModelSource,
        find_records,
        predict_files,
        predict_webcam,
    )

    if arguments.run:
        source = ModelSource(arguments.run, arguments.checkpoint, overrides=arguments.overrides)
    else:
        weights = arguments.checkpoint
        source = ModelSource(None, None, arguments.model, weights, arguments.overrides)
    if arguments.webcam is not None:
        return predict_webcam(
            arguments.webcam, source, topk=arguments.topk, window=window, step=arguments.step
        )
    return predict_files(
        find_records(arguments.paths, source.backend(), follow_links=arguments.follow_links),
        source,
        topk=arguments.topk,
        window=window,
        step=arguments.step,
        csv_file=arguments.csv,
        json_file=arguments.json,
    )


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser("predict", __doc__)
    add = parser.add_argument
    add(
        "paths",
        nargs="*",
        metavar="PATH | key=value",
        help="video, folder of frames, folder of these, or list; input=PATH is the same, "
        "output=FILE writes .csv or .json",
    )
    add("--webcam", metavar="DEVICE", help="camera instead, such as /dev/video0; Ctrl-C stops")
    add_model_source(parser)
    add("--follow-links", action="store_true", help="enter symbolic links to folders")
    add("--topk", type=int, help="classes per prediction; default: 5")
    add("--window", metavar="SECONDS", help="predict each segment of this length, or 'clip'")
    add("--step", type=float, metavar="SECONDS", help="from segment to segment; default: --window")
    add(
        "--csv",
        metavar="FILE",
        help="write path,start_seconds,end_seconds,rank,label,probability,seen_start_seconds,"
        "seen_end_seconds",
    )
    add("--json", metavar="FILE", help="write the same as JSON, one object per prediction")
    add_segment_options(parser)
    add_box_options(parser)
    return parser


def _check(arguments: argparse.Namespace) -> None:
    check_model_source(arguments)
    if arguments.topk < 1:
        raise ConfigError(f"--topk {arguments.topk}: must be 1 or more")
    if arguments.step is not None and arguments.window is None:
        raise ConfigError(f"--step {arguments.step}: needs --window; give both, or neither")
    if arguments.step is not None and not 0 < arguments.step < math.inf:
        raise ConfigError(f"--step {arguments.step}: must be seconds above 0")
    if arguments.webcam is None and not arguments.paths:
        raise ConfigError("no input: give videos, folders, lists or --webcam /dev/video0")
    if arguments.webcam is not None and (
        arguments.paths
        or arguments.window in (None, "clip")
        or arguments.csv is not None
        or arguments.json is not None
    ):
        raise ConfigError(
            f"--webcam {arguments.webcam}: needs --window SECONDS, and takes no PATH, output=, "
            "--csv or --json"
        )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigError(f"--window {text}: must be seconds above 0, or clip")
    return seconds


if __name__ == "__main__":
    run_tool(main)
