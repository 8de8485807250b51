"""One file that runs without this package: torch.export's .pt2 or ONNX, for any number of clips, checked.

python tools/export.py --run runs/motion_hiera_micro --output micro.onnx
python tools/export.py --model hiera_base_16x224 --pretrained base.pth --output base.pt2
python tools/export.py --run runs/x --int8 --output small.onnx                  # its loss on the run's data.val is told
python tools/export.py --model hiera_base_16x224 --pretrained runs/x_mae --output-of features --output maps.onnx

The program's answers are held against the model's at two batch sizes (.pt2 within 1e-5 of the largest value, ONNX logits
within 1e-4); where they differ more, nothing is written. Beside OUTPUT, OUTPUT.json says input, classes, mean and std,
frames of a clip, and the difference.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hiera_video.cli.run import run_tool
from hiera_video.errors import ConfigError

FORMATS = ("pt2", "onnx")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, checked as far as that goes without a model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", help="out_dir of a finished run")
    what.add_argument(
        "--model", metavar="NAME", help="such as hiera_base_16x224, with --pretrained"
    )
    parser.add_argument(
        "--which", choices=("best", "last"), help="which checkpoint of the run; the best there is"
    )
    parser.add_argument(
        "--pretrained", metavar="WEIGHTS", help="file, folder, hf-hub:owner/name, tag; none: fresh"
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FILE", help="x.pt2 or x.onnx"
    )
    parser.add_argument(
        "--format", choices=FORMATS, help="what --output's suffix says where not given"
    )
    parser.add_argument(
        "--output-of",
        choices=("logits", "features"),
        default="logits",
        help="features: the last map, in spatial order",
    )
    parser.add_argument("--int8", action="store_true", help="ONNX with matrix products in int8")
    parser.add_argument(
        "--videos",
        metavar="LIST",
        help="where int8's loss is measured; the run's data.val if not given",
    )
    parser.add_argument("--clips", type=int, default=256, help="on how many clips of it, at most")
    arguments = parser.parse_args(argv)
    if (arguments.model is None) != (arguments.pretrained is None):
        raise ConfigError(
            "--model and --pretrained go together; for weights as they are drawn, --pretrained none"
        )
    suffix = arguments.output.suffix.removeprefix(".")
    if suffix not in FORMATS or arguments.format not in (None, suffix):
        wanted = arguments.format or " or .".join(FORMATS)
        raise ConfigError(f"--output {arguments.output}: must end in .{wanted}")
    if arguments.int8 and suffix != "onnx":
        raise ConfigError(f"--int8: is made of ONNX; let --output end in .onnx, not .{suffix}")
    if arguments.clips < 1:
        raise ConfigError(f"--clips {arguments.clips}: must be 1 or more")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Look at the arguments before torch is imported: a mistake must answer at once."""
    arguments = parse(argv)
    from hiera_video.workflows.export import check_names, export, source_of_run, source_of_weights

    check_names(arguments.run, arguments.model)
    if arguments.run:
        source = source_of_run(arguments.run, arguments.which)
    else:
        source = source_of_weights(arguments.model, arguments.pretrained, arguments.output_of)
    export(
        source,
        arguments.output,
        output=arguments.output_of,
        int8=arguments.int8,
        videos=arguments.videos,
        clips=arguments.clips,
    )
    return 0


if __name__ == "__main__":
    run_tool(main)
