"""Serve a page on this machine that shows what a trained model sees in a video.

hiera-video app                                    # after `hiera-video demo`: its models and videos
hiera-video app --run runs/x input=videos/val      # with these videos to pick from
hiera-video app --run runs/x --mae runs/x_mae --store features/
hiera-video app --model hiera_base_16x224 --checkpoint mae_k400_ft_k400 --port 8000

Upload a video, record one or pick an example: the page shows its classes over time, the evidence
for each, what a masked autoencoder makes of it, and the nearest videos of a feature store. It
answers on 127.0.0.1 alone, sends nothing to other machines, and deletes an upload once it is
answered.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hiera_video.app.uploads import AppLimits
from hiera_video.cli.arguments import (
    add_model_source,
    check_model_source,
    command_parser,
    refuse_rest,
    split_paths,
)
from hiera_video.cli.demo import FINE_TUNED
from hiera_video.utils.checks import require
from hiera_video.utils.extras import require_extra

DEMO = Path("runs", FINE_TUNED)
"""Run of the demo, which is shown if none is given."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser("app", __doc__)
    add, limits = parser.add_argument, AppLimits()
    add(
        "paths",
        nargs="*",
        metavar="input=PATH",
        help="video, folder or list to pick from; may be repeated (the run's validation list)",
    )
    add_model_source(parser, required=False)
    add(
        "--mae",
        metavar="DIR",
        help="run of masked pre-training (the one that --run was fine-tuned from, if it is there)",
    )
    add("--store", metavar="DIR", help="output of `hiera-video extract`, searched for near videos")
    add("--port", type=int, default=7860, help="port on 127.0.0.1 (7860)")
    add(
        "--max-mb", type=float, default=limits.max_mb, help=f"largest upload ({limits.max_mb:g} MB)"
    )
    add(
        "--max-seconds",
        type=float,
        default=limits.max_seconds,
        metavar="SECONDS",
        help=f"longest video ({limits.max_seconds:g} s)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Check the arguments, then import torch and gradio, and serve the page."""
    arguments = make_parser().parse_intermixed_args(argv)
    inputs, outputs, rest = split_paths(arguments.paths)
    refuse_rest([*outputs, *rest], "give videos to pick from as input=PATH")
    run = arguments.run
    if run is None and arguments.model is None:
        require(
            (DEMO / "config.yaml").is_file(),
            "no model: give --run DIR, or --model NAME with --checkpoint WEIGHTS, or make the "
            "demo's: hiera-video demo",
        )
        run = arguments.run = str(DEMO)
    check_model_source(arguments)
    port = arguments.port
    require(0 < port < 65536, f"--port {port}: must be between 1 and 65535")
    limits = AppLimits(max_mb=arguments.max_mb, max_seconds=arguments.max_seconds)
    for flag, folder in (("--mae", arguments.mae), ("--store", arguments.store)):
        require(
            folder is None or Path(folder).is_dir(), f"{flag} {folder}: no such folder; correct it"
        )
    require_extra("app")
    if arguments.store is not None:
        require_extra("features")
    from hiera_video.app.start import run_app
    from hiera_video.workflows.predict import ModelSource

    if run is not None:
        source = ModelSource(run, arguments.checkpoint)
    else:
        source = ModelSource(None, None, arguments.model, arguments.checkpoint)
    source.backend()  # a wrong name or folder, before torch is imported
    return run_app(
        source,
        mae=arguments.mae,
        store=arguments.store,
        examples=inputs,
        limits=limits,
        port=port,
    )
