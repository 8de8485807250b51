"""Predict the classes of videos with a trained model: files, folders, long videos, a camera.

python tools/predict.py clip.mp4 folder/ --run runs/motion_hiera_micro
python tools/predict.py film.mp4 --run runs/x --window 4 --step 2 --csv out.csv --json out.json
python tools/predict.py --webcam /dev/video0 --run runs/x --window 4 --step 1
python tools/predict.py clip.mp4 --model hiera_base_16x224 --pretrained mae_k400_ft_k400

Prints one line for each video: the average over the views of the run's test (for published
weights 5×3, as the paper tests on Kinetics). With --window, prints one line for each segment of
that many seconds; `--window clip` is the length of the model's clip.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from hiera_video.cli.run import run_tool
from hiera_video.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Check the arguments, then import torch and predict; return the exit code."""
    arguments = _parser().parse_intermixed_args(argv)  # options may stand between videos
    _check(arguments)
    window = arguments.window
    if window not in (None, "clip"):
        window = _seconds(window)
    from hiera_video.workflows.predict import (
        ModelSource,
        find_videos,
        predict_files,
        predict_webcam,
    )

    source = ModelSource(arguments.run, arguments.which, arguments.model, arguments.pretrained)
    if arguments.webcam is not None:
        return predict_webcam(
            arguments.webcam, source, topk=arguments.topk, window=window, step=arguments.step
        )
    return predict_files(
        find_videos(arguments.paths, source.backend(), follow_links=arguments.follow_links),
        source,
        topk=arguments.topk,
        window=window,
        step=arguments.step,
        csv_file=arguments.csv,
        json_file=arguments.json,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH", help="video, folder of frames, or folder of these")
    add("--webcam", metavar="DEVICE", help="camera instead, such as /dev/video0; Ctrl-C stops")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--run", help="out_dir of a run")
    model.add_argument("--model", metavar="NAME", help="hiera_base_16x224, …; with --pretrained")
    add("--follow-links", action="store_true", help="enter symbolic links to folders")
    add("--which", choices=("best", "last"), help="checkpoint of the run; default: the best")
    add("--pretrained", metavar="WEIGHTS", help="file, folder, hf-hub:owner/name, or tag")
    add("--topk", type=int, default=5, help="classes per prediction; default: 5")
    add("--window", metavar="SECONDS", help="predict each segment of this length, or 'clip'")
    add("--step", type=float, metavar="SECONDS", help="from segment to segment; default: --window")
    add("--csv", metavar="FILE", help="write path,start_seconds,end_seconds,rank,label,probability")
    add("--json", metavar="FILE", help="write the same as JSON, one object per prediction")
    return parser


def _check(arguments: argparse.Namespace) -> None:
    if (arguments.model is None) != (arguments.pretrained is None):
        raise ConfigError("--model and --pretrained go together; for your own run, give only --run")
    if arguments.topk < 1:
        raise ConfigError(f"--topk {arguments.topk}: must be 1 or more")
    if arguments.step is not None and arguments.window is None:
        raise ConfigError(f"--step {arguments.step}: needs --window; give both, or neither")
    if arguments.step is not None and not 0 < arguments.step < math.inf:
        raise ConfigError(f"--step {arguments.step}: must be seconds above 0")
    if arguments.webcam is None and not arguments.paths:
        raise ConfigError("no input: give videos, folders or --webcam /dev/video0")
    if arguments.webcam is not None and (
        arguments.paths
        or arguments.window in (None, "clip")
        or arguments.csv is not None
        or arguments.json is not None
    ):
        raise ConfigError(
            f"--webcam {arguments.webcam}: needs --window SECONDS, and takes no PATH, --csv or "
            "--json"
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
