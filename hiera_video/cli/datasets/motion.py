"""Make the motion set: short videos of one moving object, labelled by how it moves.

    hiera-video prepare motion output=data/motion                # about half a minute
    hiera-video prepare motion output=data/motion_hard --hard

The default shows digits on plain backgrounds, `--hard` pieces of photographs on dimmed photographs.
The annotations are in Something-Something's format. Equal options give equal bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hiera_video.cli.arguments import command_parser, refuse_rest, single, split_paths
from hiera_video.errors import ConfigError
from hiera_video.utils.checks import require
from hiera_video.utils.extras import require_extra


def main(argv: Sequence[str] | None = None) -> int:
    """Make the set unless it exists."""
    arguments = parse(argv)
    require_extra("demo")
    from hiera_video.data.prepare.motion import MotionOptions, make_motion_set
    from hiera_video.data.prepare.motion_scenes import CLASSES

    out = Path(arguments.out)
    options = MotionOptions(
        seed=arguments.seed, hard=arguments.hard, clips_per_class=arguments.clips_per_class
    )
    try:
        made = make_motion_set(out, options, arguments.workers)
    except OSError as error:
        raise ConfigError(
            f"output={out}: {error.strerror or error}; free disk space or choose another folder"
        ) from error
    except KeyboardInterrupt:
        print("interrupted; run the same command to resume", file=sys.stderr)
        return 130
    train, held_out = (len(CLASSES) * n for n in (options.clips_per_class, options.held_out))
    print(f"{out}: {'made' if made else 'exists:'} {train} training and {held_out} held-out clips")
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = command_parser("prepare motion", __doc__)
    add = parser.add_argument
    add("paths", nargs="*", metavar="output=DIR", help="folder to make, such as data/motion")
    add("--out", metavar="DIR", help="the same as output=")
    add("--hard", action="store_true", help="pieces of photographs on dimmed photographs")
    add(
        "--clips-per-class",
        type=int,
        default=240,
        metavar="N",
        help="training clips of each class; a sixth as many are held out (240)",
    )
    add("--seed", type=int, default=0, help="another seed gives another set (0)")
    add("--workers", type=int, default=2, help="processes (2)")
    arguments = parser.parse_intermixed_args(argv)
    inputs, outputs, rest = split_paths(arguments.paths)
    refuse_rest([*inputs, *rest], "give output=DIR")
    arguments.out = single(outputs, "output", "--out", arguments.out)
    require(arguments.out is not None, "output= is not set; name a folder such as data/motion")
    clips, workers = arguments.clips_per_class, arguments.workers
    require(clips >= 1, f"--clips-per-class {clips}: must be 1 or more")
    require(workers >= 1, f"--workers {workers}: must be 1 or more")
    return arguments
