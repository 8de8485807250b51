"""Average the weights of several checkpoints into one model.

hiera-video average --run runs/x --last 3 output=averaged            # the newest of a run
hiera-video average input=runs/a input=runs/b output=averaged        # each run's best
hiera-video average input=a.pth input=b.pth --model hiera_base_16x224 output=averaged
hiera-video test --run runs/x test.checkpoint=averaged

Writes a folder with weights, sizes of the model and class names, for test.checkpoint,
model.pretrained and hv.from_pretrained. It has no settings of clips: hv.load reads it with the
default ones, and one label a video. A run keeps train.keep checkpoints.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hiera_video.cli.arguments import command_parser, refuse_rest, single, split_paths
from hiera_video.config.load import run_config_file
from hiera_video.utils.checks import require


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser("average", __doc__)
    add = parser.add_argument
    add(
        "paths",
        nargs="*",
        metavar="input=WEIGHTS | output=DIR",
        help="run, checkpoint, folder or file (two or more); the folder to write",
    )
    add("--run", metavar="DIR", help="out_dir of a run whose newest checkpoints are averaged")
    add("--last", type=int, metavar="N", help="with --run: number of checkpoints (2)")
    add("--model", metavar="NAME", help="model of files that do not describe it")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Check the arguments, then import torch and average."""
    arguments = make_parser().parse_intermixed_args(argv)
    inputs, outputs, rest = split_paths(arguments.paths)
    refuse_rest(rest, "give input=WEIGHTS or --run DIR, and output=DIR")
    output = single(outputs, "output", "output=")
    require(output is not None, "output= is not set; name a folder for the averaged model")
    require(
        (arguments.run is None) != (not inputs),
        "give either --run DIR or input=WEIGHTS, two or more",
    )
    require(
        arguments.last is None or arguments.run is not None,
        f"--last {arguments.last}: goes with --run; name the checkpoints with input= otherwise",
    )
    count = len(inputs) if inputs else 2 if arguments.last is None else arguments.last
    flag = f"input={inputs[0]}" if inputs else f"--last {count}"
    require(count >= 2, f"{flag}: an average needs two checkpoints or more")
    folder = Path(str(output))
    require(
        not (folder / "checkpoints").exists(),
        f"output={output}: is the folder of a run; choose another folder",
    )
    if arguments.run:
        run_config_file(arguments.run)
    from hiera_video.workflows.average import average, last_checkpoints

    sources = inputs or last_checkpoints(Path(arguments.run), count)
    average(sources, folder, model=arguments.model)
    print(f"{output}: mean of {', '.join(sources)}")
    return 0
