"""Export a feature store for ActionFormer and OpenTAD: one .npy per video, and annotations.

python tools/extract_features.py --run runs/x input=videos/ output=features/ \\
    features.unit=frames features.window=16 features.stride=4
python tools/write_localisation.py --store features/ --output tad/ --annotations thumos14.json

OUTPUT/layout.json has the values for their configurations (feat_stride, num_frames;
feature_stride, offset_frames). Without --annotations the videos have none, as for a test with a
trained detector. The files are described in hiera_video/features/localisation.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Export the store and print the content of layout.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--store", required=True, metavar="DIR", help="output of tools/extract_features.py")
    add("--output", required=True, metavar="DIR", help="folder to write to")
    add("--annotations", metavar="JSON", help="segments in ActivityNet's format, by video name")
    add("--subset", default="validation", help="subset of the videos without annotations")
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
