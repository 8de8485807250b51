"""Export a model as one file that runs without this package: torch.export's .pt2, or ONNX.

python tools/export.py --run runs/motion_hiera_micro --output micro.onnx
python tools/export.py --model hiera_base_16x224 --pretrained base.pth --output base.pt2
python tools/export.py --run runs/x --int8 --output small.onnx      # measures accuracy on data.val
python tools/export.py --model hiera_base_16x224 --pretrained runs/x_mae --output-of features \\
    --output maps.onnx

The program accepts any number of clips. Its output is compared with the model's at two batch sizes
(.pt2 within 1e-5 of the largest value, ONNX logits within 1e-4); if it differs more, nothing is
written. OUTPUT.json, beside OUTPUT, records input, classes, mean and std, frames of a clip, and the
difference.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hiera_video.cli.run import run_tool
from hiera_video.errors import ConfigError

FORMATS = ("pt2", "onnx")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line and check what can be checked without a model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", help="out_dir of a run")
    source.add_argument("--model", metavar="NAME", help="a model name, with --pretrained")
    add("--which", choices=("best", "last"), help="checkpoint of the run; default: best, else last")
    add(
        "--pretrained",
        metavar="WEIGHTS",
        help="file, folder, hf-hub:owner/name or tag; none: newly initialised",
    )
    add("--output", required=True, type=Path, metavar="FILE", help="x.pt2 or x.onnx")
    add("--format", choices=FORMATS, help="default: the suffix of --output")
    add(
        "--output-of",
        choices=("logits", "features"),
        default="logits",
        help="features: the last map, in spatial order",
    )
    add("--int8", action="store_true", help="ONNX with matrix products in int8")
    add(
        "--videos",
        metavar="LIST",
        help="list or folder to measure int8's accuracy on; default: the run's data.val",
    )
    add("--clips", type=int, default=256, help="largest number of clips for that (default 256)")
    arguments = parser.parse_args(argv)
    _check(arguments)
    return arguments


def _check(arguments: argparse.Namespace) -> None:
    if (arguments.model is None) != (arguments.pretrained is None):
        raise ConfigError(
            "--model and --pretrained go together; for newly initialised weights, --pretrained none"
        )
    suffix = arguments.output.suffix.removeprefix(".")
    if suffix not in FORMATS or arguments.format not in (None, suffix):
        expected = arguments.format or " or .".join(FORMATS)
        raise ConfigError(f"--output {arguments.output}: must end in .{expected}")
    if arguments.int8 and suffix != "onnx":
        raise ConfigError(f"--int8: needs ONNX; use an --output that ends in .onnx, not .{suffix}")
    if arguments.clips < 1:
        raise ConfigError(f"--clips {arguments.clips}: must be 1 or more")


def main(argv: Sequence[str] | None = None) -> int:
    """Check the arguments, then import torch and export."""
    arguments = parse(argv)
    from hiera_video.workflows.export import export
    from hiera_video.workflows.export_source import (
        check_exportable,
        export_source_from_run,
        export_source_from_weights,
    )

    check_exportable(arguments.run, arguments.model)
    if arguments.run:
        source = export_source_from_run(arguments.run, arguments.which)
    else:
        source = export_source_from_weights(
            arguments.model, arguments.pretrained, arguments.output_of
        )
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
