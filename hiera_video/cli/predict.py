"""What a trained model sees in videos: files, folders, long videos stretch by stretch.

python tools/predict.py clip.mp4 folder/ --run runs/motion_hiera_micro
python tools/predict.py film.mp4 --run runs/x --window 4 --step 2 --csv answers.csv --json answers.json
python tools/predict.py --webcam /dev/video0 --run runs/x --window 4 --step 1
python tools/predict.py clip.mp4 --model hiera_base_16x224 --pretrained mae_k400_ft_k400   # the authors' weights

A line a video (or a stretch of it) goes to the screen. Without --window a video gets one answer from the views of the
run's test (of weights: 5×3, as the paper tests on Kinetics); with it, one for each WINDOW seconds. `--window clip` takes the
length of the model's clip.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from hiera_video.cli.run import run_tool
from hiera_video.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Look at the arguments before torch is imported: a mistake must answer at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="videos or folders of frames, as the run reads; and folders that hold some",
    )
    parser.add_argument(
        "--webcam", metavar="DEVICE", help="a camera instead, such as /dev/video0; Ctrl-C ends it"
    )
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("--run", help="out_dir of a finished run")
    whose.add_argument(
        "--model", metavar="NAME", help="such as hiera_base_16x224, with --pretrained"
    )
    parser.add_argument(
        "--which", choices=("best", "last"), help="which checkpoint of the run; the best there is"
    )
    parser.add_argument(
        "--pretrained", metavar="WEIGHTS", help="file, folder, hf-hub:owner/name, or tag"
    )
    parser.add_argument("--topk", type=int, default=5, help="answers a video")
    parser.add_argument(
        "--window",
        metavar="SECONDS",
        help="one answer for each stretch of so many seconds, or 'clip'",
    )
    parser.add_argument(
        "--step",
        type=float,
        metavar="SECONDS",
        help="from one stretch to the next; default: its length",
    )
    parser.add_argument(
        "--csv", metavar="FILE", help="write path,start_seconds,end_seconds,rank,label,probability"
    )
    parser.add_argument("--json", metavar="FILE", help="write the same, one object a stretch")
    arguments = parser.parse_intermixed_args(argv)  # options may stand between videos
    if (arguments.model is None) != (arguments.pretrained is None):
        raise ConfigError(
            "--model and --pretrained go together; for a run of your own, --run alone"
        )
    if arguments.topk < 1:
        raise ConfigError(f"--topk {arguments.topk}: must be 1 or more")
    if arguments.step is not None and arguments.window is None:
        raise ConfigError(f"--step {arguments.step}: goes with --window; give both, or neither")
    window = None
    if arguments.window not in (None, "clip"):
        try:
            window = float(arguments.window)
        except ValueError:
            window = 0.0
        if not 0 < window < math.inf:
            raise ConfigError(f"--window {arguments.window}: must be seconds above 0, or clip")
    if arguments.step is not None and not 0 < arguments.step < math.inf:
        raise ConfigError(f"--step {arguments.step}: must be seconds above 0")
    if arguments.webcam is None and not arguments.paths:
        raise ConfigError("nothing to look at: give videos, folders or --webcam /dev/video0")
    from hiera_video.workflows.predict import Answerer, find_videos, predict_files, predict_webcam

    answerer = Answerer(arguments.run, arguments.which, arguments.model, arguments.pretrained)
    if arguments.webcam is not None:
        if arguments.paths or window is None or arguments.csv or arguments.json:
            raise ConfigError(
                f"--webcam {arguments.webcam}: goes with --window SECONDS, and without PATH, --csv and --json"
            )
        return predict_webcam(
            arguments.webcam,
            answerer,
            topk=arguments.topk,
            window=window,
            step=arguments.step,
        )
    return predict_files(
        find_videos(arguments.paths, answerer.backend()),
        answerer,
        topk=arguments.topk,
        along=arguments.window is not None,
        window=window,
        step=arguments.step,
        csv_file=arguments.csv,
        json_file=arguments.json,
    )


if __name__ == "__main__":
    run_tool(main)
