"""Make the motion set: short videos of one moving object, labelled by how it moves.

    hiera-video prepare motion output=data/motion                # about half a minute
    hiera-video prepare motion output=data/motion_hard --hard
    hiera-video prepare motion output=data/motion_movers --movers 4

The default shows digits on plain backgrounds, `--hard` pieces of photographs on dimmed photographs.
The annotations are in Something-Something's format. With --movers, a video has several objects,
each with its box and its motion, for action detection; the annotations are in AVA's form. Equal
options give equal bytes.
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
    from hiera_video.data.prepare.motion_movers import MoverOptions, make_mover_set
    from hiera_video.data.prepare.motion_scenes import CLASSES

    out, common = Path(arguments.out), {"seed": arguments.seed, "hard": arguments.hard}
    clips, movers = arguments.clips_per_class, arguments.movers
    try:
        if movers == 1:
            options = MotionOptions(clips_per_class=clips, **common)
            made = make_motion_set(out, options, arguments.workers)
            train, held_out = (len(CLASSES) * n for n in (clips, options.held_out))
        else:
            mover_options = MoverOptions(movers=movers, movers_per_class=clips, **common)
            made = make_mover_set(out, mover_options, arguments.workers)
            train, held_out = map(mover_options.videos, ("train", "validation"))
    except OSError as error:
        raise ConfigError(
            f"output={out}: {error.strerror or error}; free disk space or choose another folder"
        ) from error
    except KeyboardInterrupt:
        print("interrupted; run the same command to resume", file=sys.stderr)
        return 130
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
    add(
        "--movers",
        type=int,
        default=1,
        metavar="N",
        help="2 to N objects in each video, with boxes; --clips-per-class then counts objects (1)",
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
    require(
        1 <= arguments.movers <= 4,
        f"--movers {arguments.movers}: must be 1, or at most 2 to 4 objects in each video",
    )
    require(workers >= 1, f"--workers {workers}: must be 1 or more")
    return arguments
