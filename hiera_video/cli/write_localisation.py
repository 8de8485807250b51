"""Export a feature store for ActionFormer and OpenTAD: one .npy per video, and annotations.

hiera-video extract --run runs/x input=videos/ output=features/ \\
    features.unit=frames features.window=16 features.stride=4
hiera-video write-localisation --store features/ output=tad/ --annotations thumos14.json

OUTPUT/layout.json has the values for their configurations (feat_stride, num_frames;
feature_stride, offset_frames). Without --annotations the videos have none, as for a test with a
trained detector. The files are described in hiera_video/features/localisation.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from hiera_video.cli.arguments import command_parser, refuse_rest, single, split_paths
from hiera_video.utils.checks import require
from hiera_video.utils.extras import require_extra


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser("write-localisation", __doc__)
    add = parser.add_argument
    add("paths", nargs="*", metavar="output=DIR", help="folder to write to")
    add("--store", required=True, metavar="DIR", help="output of `hiera-video extract`")
    add("--output", metavar="DIR", help="the same as output=")
    add("--annotations", metavar="JSON", help="segments in ActivityNet's format, by video name")
    add("--subset", default="validation", help="subset of the videos without annotations")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Export the store and print the content of layout.json."""
    arguments = make_parser().parse_intermixed_args(argv)
    require_extra("features")
    inputs, outputs, rest = split_paths(arguments.paths)
    refuse_rest([*inputs, *rest], "give output=DIR")
    output = single(outputs, "output", "--output", arguments.output)
    require(output is not None, "output= is not set; name a folder to write to")
    from hiera_video.features.localisation import write_localisation
    from hiera_video.features.store import FeatureStore

    layout = write_localisation(
        FeatureStore(arguments.store),
        str(output),
        annotations=arguments.annotations,
        subset=arguments.subset,
    )
    print(json.dumps(layout, indent=1, ensure_ascii=False))
    return 0
