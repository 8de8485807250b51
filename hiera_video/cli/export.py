"""Export a model as one file that runs without this package: torch.export's .pt2, or ONNX.

hiera-video export --run runs/motion_hiera_micro output=micro.onnx
hiera-video export --model hiera_base_16x224 --checkpoint base.pth output=base.pt2
hiera-video export --run runs/x --int8 output=small.onnx        # measures accuracy on data.val
hiera-video export --run runs/x --int8 output=small.onnx data.val=lists/other.csv
hiera-video export --model hiera_base_16x224 --checkpoint runs/x_mae --output-of features \\
    output=maps.onnx

The program accepts any number of clips. Its output is compared with the model's at two batch sizes
(.pt2 within 1e-5 of the largest value, ONNX logits within 1e-4); if it differs more, nothing is
written. FILE.json, beside the file, records input, classes, mean and std, frames of a clip, and
the difference. With --run, keys of data and clip override the run's configuration.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hiera_video.cli.arguments import (
    add_model_source,
    check_file_name,
    check_model_source,
    command_parser,
    refuse_rest,
    single,
    split_paths,
)
from hiera_video.cli.overrides import split_overrides
from hiera_video.cli.run import run_tool
from hiera_video.errors import ConfigError

FORMATS = ("pt2", "onnx")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser("export", __doc__)
    add = parser.add_argument
    add("paths", nargs="*", metavar="output=FILE | key=value", help="x.pt2 or x.onnx; data.val=…")
    add_model_source(parser)
    add("--output", metavar="FILE", help="the same as output=")
    add("--format", choices=FORMATS, help="default: the suffix of output=")
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
        help="list or folder to measure int8's accuracy on, the same as input=; default: the run's "
        "data.val",
    )
    add("--clips", type=int, default=256, help="largest number of clips for that (default 256)")
    return parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line and check what can be checked without a model."""
    arguments = make_parser().parse_intermixed_args(argv)
    inputs, outputs, rest = split_paths(arguments.paths)
    arguments.overrides, rest = split_overrides(rest, "export", ("data", "clip"))
    refuse_rest(rest, "give output=FILE")
    arguments.videos = single(inputs, "input", "--videos", arguments.videos)
    output = single(outputs, "output", "--output", arguments.output)
    if output is None:
        raise ConfigError("output= is not set; name a file such as output=model.onnx")
    arguments.output = Path(output)
    _check(arguments)
    return arguments


def _check(arguments: argparse.Namespace) -> None:
    check_model_source(arguments, hint="; none exports newly initialised weights")
    if arguments.overrides and arguments.run is None:
        raise ConfigError(f"{arguments.overrides[0]}: overrides a run's key; give --run DIR")
    suffix = arguments.output.suffix.removeprefix(".")
    if suffix not in FORMATS or arguments.format not in (None, suffix):
        expected = arguments.format or " or .".join(FORMATS)
        raise ConfigError(f"output={arguments.output}: must end in .{expected}")
    check_file_name(str(arguments.output))
    if arguments.int8 and suffix != "onnx":
        raise ConfigError(f"--int8: needs ONNX; use an output= that ends in .onnx, not .{suffix}")
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

    check_exportable(arguments.run, arguments.model, arguments.overrides)
    if arguments.run:
        source = export_source_from_run(arguments.run, arguments.checkpoint, arguments.overrides)
    else:
        source = export_source_from_weights(
            arguments.model, arguments.checkpoint, arguments.output_of
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
