"""Draw videos, what a model bases its answer on, and what a training is fed.

hiera-video visualize input=videos/ output=sheet.png                     # frames of each video
hiera-video visualize input=videos/ output=sheet.png --run runs/x        # and its first class
hiera-video visualize input=frames/ output=sheet.png data.decoder=frames # folders of pictures
hiera-video visualize input=clip.mp4 output=why.gif --run runs/x --draw evidence
hiera-video visualize input=videos/ output=masks.png --run runs/x_mae    # original, visible,
                                                                         # reconstructed frames
hiera-video visualize input=a.mp4 output=a.gif --model mae_hiera_base_16x224 --checkpoint mae_k400
hiera-video visualize input=clip.mp4 output=units.png --draw units --cfg k400_hiera_b_mae
hiera-video visualize input=videos/ output=fed.gif --draw augmented --cfg k400_hiera_b
hiera-video visualize output=rate.png --draw schedule --cfg k400_hiera_b train.epochs=50
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiera_video.cli.arguments import (
    add_model_source,
    check_file_name,
    check_model_source,
    command_parser,
    expand_globs,
    refuse_rest,
    single,
    split_paths,
)
from hiera_video.cli.overrides import split_overrides
from hiera_video.config.load import load_config, run_config_file
from hiera_video.models.registry import is_mae
from hiera_video.utils.checks import require
from hiera_video.utils.extras import require_extra
from hiera_video.utils.text_files import count_of

if TYPE_CHECKING:
    from hiera_video.data.manifest.record import Record
    from hiera_video.viz.films import ClipFilm
    from hiera_video.workflows.predict import ModelSource

EXPLAINED = ("evidence", "occlusion", "rollout", "colours")
"""Explanations of a classifier's answer."""
CONFIGURED = ("units", "augmented", "schedule")
"""What a configuration defines, without weights."""
DRAWN = ("frames", "reconstructions", *EXPLAINED, *CONFIGURED)
MOVING = (".gif", ".mp4")
OPTIONS = {"data.follow_links": "--follow-links"}
"""Key → option that stands for it."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser("visualize", __doc__)
    add = parser.add_argument
    add(
        "paths",
        nargs="*",
        metavar="input=PATH | output=FILE",
        help="video, folder or list (may be repeated); the picture to write (.png, .gif or .mp4); "
        "keys of the configuration",
    )
    add(
        "--draw",
        choices=DRAWN,
        help="a map over each clip, as hv.explain: evidence, occlusion, rollout or colours; mask "
        "units; augmented training clips; the schedule of the learning rate (default: frames, or "
        "reconstructions of a masked autoencoder)",
    )
    add_model_source(parser, required=False)
    add("--cfg", metavar="FILE", help="configuration, for units, augmented and schedule")
    add("--target", metavar="CLASS", help="class to explain, by name or index (the most likely)")
    add("--draws", type=int, metavar="N", help="random sets of units of an occlusion (512)")
    add("--stage", type=int, metavar="N", help="stage whose features give the colours (the last)")
    add("--store", metavar="DIR", help="feature store whose windows fix the colours (each clip)")
    add("--limit", type=int, default=12, metavar="N", help="draw the first N videos (12)")
    add("--follow-links", action="store_true", help="enter symbolic links to folders")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Check the arguments, then import torch, read the videos and write the picture."""
    arguments = make_parser().parse_intermixed_args(argv)
    inputs, outputs, rest = split_paths(arguments.paths)
    output = single(outputs, "output", "output=")
    drawn = _resolve_drawn(arguments)
    _check(arguments, drawn, inputs, output)
    inputs = expand_globs(inputs)
    if drawn in CONFIGURED:
        overrides = tuple(word for word in rest if "=" in word)
        rest = [word for word in rest if "=" not in word]
    else:
        overrides, rest = split_overrides(rest, "visualize", ("data", "clip"), OPTIONS)
    refuse_rest(rest, "give input=PATH and output=FILE.png")
    check_file_name(str(output))
    require_extra("train")
    from hiera_video.workflows.predict import check_writable

    check_writable(str(output))
    if drawn in CONFIGURED:
        return _draw_config(arguments, drawn, inputs, str(output), overrides)
    return _draw_videos(arguments, drawn, inputs, str(output), overrides)


def _resolve_drawn(arguments: argparse.Namespace) -> str:
    """Return what to draw: what `--draw` names, or what suits the model."""
    if arguments.draw is not None:
        return str(arguments.draw)
    if arguments.run is not None:
        config = load_config(run_config_file(arguments.run))
        return "reconstructions" if config.train.task == "pretrain" else "frames"
    drawn = arguments.model is not None and is_mae(arguments.model)
    return "reconstructions" if drawn else "frames"


def _check(
    arguments: argparse.Namespace, drawn: str, inputs: Sequence[str], output: str | None
) -> None:
    moves = drawn not in ("frames", "schedule")
    suffixes = (".png", *MOVING) if moves else (".png",)
    require(
        output is not None and Path(output).suffix.lower() in suffixes,
        f"output={output or ''}: name a file that ends in {' or '.join(suffixes)}",
    )
    if drawn == "schedule":
        require(not inputs, f"input={inputs[0] if inputs else ''}: --draw schedule draws no videos")
    else:
        require(bool(inputs), "input= is not set; name a video, a folder or a list")
    require(arguments.limit >= 1, f"--limit {arguments.limit}: must be 1 or more")
    require(
        arguments.run is not None or arguments.model is not None or arguments.checkpoint is None,
        f"--checkpoint {arguments.checkpoint}: needs --run",
    )
    check_model_source(arguments)
    if drawn in CONFIGURED:
        require(
            (arguments.cfg is None) != (arguments.run is None) and arguments.model is None,
            f"--draw {drawn}: give --cfg FILE or --run DIR, and no --model",
        )
    else:
        require(
            arguments.cfg is None,
            f"--cfg {arguments.cfg}: goes with --draw {', '.join(CONFIGURED)}",
        )
    require(
        drawn not in (*EXPLAINED, "reconstructions")
        or arguments.run is not None
        or arguments.model is not None,
        f"--draw {drawn}: needs a model; give --run DIR, or --model NAME and --checkpoint",
    )
    for name, kinds in (
        ("target", EXPLAINED[:2]),
        ("draws", ("occlusion",)),
        ("stage", ("colours",)),
        ("store", ("colours",)),
    ):
        value = getattr(arguments, name)
        require(
            value is None or drawn in kinds,
            f"--{name} {value}: goes with --draw {' or '.join(kinds)}",
        )


def _draw_config(
    arguments: argparse.Namespace,
    drawn: str,
    inputs: Sequence[str],
    output: str,
    overrides: Sequence[str],
) -> int:
    """Draw what a configuration defines."""
    config = load_config(arguments.cfg or run_config_file(arguments.run), overrides)
    if drawn == "schedule":
        from hiera_video.workflows.predict import write_file
        from hiera_video.workflows.visualize import schedule_plot

        write_file(output, schedule_plot(config))
        print(f"{output}: {count_of(config.train.epochs, 'epoch')}")
        return 0
    videos = _find(arguments, inputs, config.data.backend)
    from hiera_video.workflows.clip_films import augmented_films, unit_films

    films = (unit_films if drawn == "units" else augmented_films)(config, videos)
    return _write(output, films)


def _draw_videos(
    arguments: argparse.Namespace,
    drawn: str,
    inputs: Sequence[str],
    output: str,
    overrides: tuple[str, ...],
) -> int:
    """Draw videos, with a model or without one."""
    from hiera_video.workflows.predict import ModelSource, write_file

    which, weights = arguments.checkpoint, None
    if arguments.run is None:
        which, weights = None, arguments.checkpoint
    source = ModelSource(arguments.run, which, arguments.model, weights, overrides)
    backend = source.backend()
    videos = _find(arguments, inputs, backend)
    from hiera_video.workflows import visualize

    if drawn == "frames":
        with_model = arguments.run is not None or arguments.model is not None
        run = source.load() if with_model else None
        write_file(output, visualize.video_sheet(videos, backend, run))
        print(f"{output}: {count_of(len(videos), 'video')}")
        return 0
    if drawn == "reconstructions":
        return _draw_reconstructions(source, videos, output)
    from hiera_video.workflows.clip_films import explained_films

    options = {name: getattr(arguments, name) for name in ("draws", "stage", "store")}
    given = {name: value for name, value in options.items() if value is not None}
    run, target = source.load(), arguments.target
    return _write(output, explained_films(run, videos, drawn, target, **given))  # type: ignore[arg-type]


def _draw_reconstructions(source: ModelSource, videos: Sequence[Record], output: str) -> int:
    from hiera_video.workflows import visualize
    from hiera_video.workflows.clip_films import reconstructed_films
    from hiera_video.workflows.predict import write_file

    model, config = visualize.load_autoencoder(source)
    if Path(output).suffix.lower() in MOVING:
        return _write(output, reconstructed_films(model, config, videos))
    write_file(output, visualize.reconstructions(model, config, videos))
    print(f"{output}: {count_of(len(videos), 'video')}")
    return 0


def _find(arguments: argparse.Namespace, inputs: Sequence[str], backend: Any) -> list[Record]:
    from hiera_video.workflows.predict import find_records

    found = find_records(inputs, backend, follow_links=arguments.follow_links)
    return found[: arguments.limit]


def _write(output: str, films: Sequence[ClipFilm]) -> int:
    from hiera_video.workflows.visualize import write_films

    write_films(output, films)
    print(f"{output}: {count_of(len(films), 'video')}")
    return 0
