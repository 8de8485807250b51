"""A feature store in the layout that ActionFormer and OpenTAD read: a .npy a video at one stride, and its annotations.

python tools/extract_features.py --run runs/x input=videos/ output=features/ features.unit=frames \\
    features.window=16 features.stride=4
python tools/write_localisation.py --store features/ --output tad/ --annotations thumos14.json

OUTPUT/layout.json holds the keys for their configurations (feat_stride, num_frames; feature_stride, offset_frames).
Without --annotations the videos get none, for a test with a trained detector. What stands where:
hiera_video/features/localisation.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from hiera_video.cli.run import run_tool


def main(argv: Sequence[str] | None = None) -> int:
    """Read, write, say what the configuration needs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--store", required=True, metavar="DIR", help="output of tools/extract_features.py"
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder for features/, annotations.json …"
    )
    parser.add_argument(
        "--annotations", metavar="JSON", help="segments in ActivityNet's form, by the videos' names"
    )
    parser.add_argument(
        "--subset", default="validation", help="of videos that the annotations do not name"
    )
    arguments = parser.parse_args(argv)
    from hiera_video.features.localisation import write_localisation
    from hiera_video.features.store import FeatureStore

    layout = write_localisation(
        FeatureStore(arguments.store),
        arguments.output,
        annotations=arguments.annotations,
        subset=arguments.subset,
    )
    print(json.dumps(layout, indent=1, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    run_tool(main)
