"""Options of `predict --segments`, which finds when the classes of a model happen in videos."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from hiera_video.cli.arguments import check_model_source, set_outputs
from hiera_video.errors import ConfigError
from hiera_video.utils.checks import require
from hiera_video.utils.extras import require_extra

OUTPUTS = {".csv": "csv", ".via.json": "via", ".json": "json", ".eaf": "eaf", ".html": "html"}
"""End of the name in `output=` → kind of file; of several that fit, the first."""


def add_segment_options(parser: argparse.ArgumentParser) -> None:
    """Add the options, and the defaults of what `output=` sets."""
    add = parser.add_argument
    add(
        "--segments",
        action="store_true",
        help="predict when each class happens: segments with class, start, end and score; output= "
        "also writes .eaf (ELAN), .via.json (VIA 3) and .html (timelines)",
    )
    add("--threshold", type=float, metavar="SCORE", help="of a segment; default: chosen, else 0.5")
    add("--smooth", type=float, metavar="SECONDS", help="average scores; default: half a window")
    add("--min-seconds", type=float, metavar="SECONDS", help="shortest segment; default: the same")
    add(
        "--choose-thresholds",
        metavar="LIST",
        help="choose the thresholds of --segments on a list of labelled segments, and keep them, "
        "with --window, --step, --smooth and --min-seconds, in the run's folder",
    )
    parser.set_defaults(eaf=None, via=None, html=None)


def wants_segments(arguments: argparse.Namespace) -> bool:
    """Return True if the command line is about segments.

    Raises:
        ConfigError: An option of segments is given without `--segments`.
    """
    wanted = arguments.segments or arguments.choose_thresholds is not None
    for name in ("threshold", "smooth", "min_seconds"):
        value = getattr(arguments, name)
        require(
            wanted or value is None,
            f"--{name.replace('_', '-')} {value}: goes with --segments only",
        )
    return wanted


def run_segments(arguments: argparse.Namespace, outputs: Sequence[str]) -> int:
    """Check the arguments, then import torch and find segments, or choose thresholds.

    Args:
        arguments: The parsed command line of `predict`.
        outputs: Values of `output=`.
    """
    set_outputs(arguments, outputs, OUTPUTS)
    files = {kind: getattr(arguments, kind) for kind in OUTPUTS.values()}
    files = {kind: path for kind, path in files.items() if path is not None}
    _check(arguments, files)
    from hiera_video.eval.segments.settings import SegmentSettings

    window = None if arguments.window in (None, "clip") else _seconds(arguments.window)
    options = {name: getattr(arguments, name) for name in ("step", "smooth", "min_seconds")}
    options = {"window": window, **options}
    SegmentSettings().override(**options, threshold=arguments.threshold)  # checks the values
    from hiera_video.workflows.labelled_segments import choose_run_thresholds
    from hiera_video.workflows.predict import ModelSource, find_records
    from hiera_video.workflows.segments import predict_segment_files, settings_of

    source = ModelSource(arguments.run, arguments.checkpoint, overrides=arguments.overrides)
    if arguments.run is None:
        weights = arguments.checkpoint
        source = ModelSource(None, None, arguments.model, weights, arguments.overrides)
    if arguments.choose_thresholds is not None:
        settings = SegmentSettings().override(**options)
        return choose_run_thresholds(
            arguments.choose_thresholds, source, settings, follow_links=arguments.follow_links
        )
    records = find_records(arguments.paths, source.backend(), follow_links=arguments.follow_links)
    settings = settings_of(source)
    if arguments.window == "clip":
        settings = replace(settings, window=None)
    settings = settings.override(**options, threshold=arguments.threshold)
    return predict_segment_files(records, source, settings, files)


def _check(arguments: argparse.Namespace, files: dict[str, str]) -> None:
    check_model_source(arguments)
    chosen = arguments.choose_thresholds
    about = "--segments" if chosen is None else "--choose-thresholds"
    for name in ("boxes", "start_seconds", "topk"):
        value = getattr(arguments, name)
        require(
            value is None,
            f"--{name.replace('_', '-')} {value}: does not go with {about}; remove one of them",
        )
    require(
        arguments.webcam is None,
        f"--webcam {arguments.webcam}: segments are found in files; use --window without "
        "--segments for a camera",
    )
    if chosen is None:
        require(bool(arguments.paths), "no input: give videos, folders or lists")
        if "html" in files:
            require_extra("train")
        return
    require(
        arguments.run is not None,
        f"--choose-thresholds {chosen}: keeps them in the folder of a run; give --run DIR",
    )
    require(
        not arguments.paths and not files and arguments.threshold is None,
        f"--choose-thresholds {chosen}: takes no PATH, output= or --threshold; predict with "
        "--segments afterwards",
    )


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"--window {text}: must be seconds above 0, or clip") from error
