"""Measure how often the nearest other video of the motion set has the same class.

    python benchmarks/search_motion.py --run runs/motion_hiera_micro   # after make demo

Extracts features of the run's `data.val`, then searches with each video as the example, once with a
matrix product and once with faiss. Writes `results/search_motion.json`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from record import record

import hiera_video as hv
from hiera_video.features.search import SearchIndex
from hiera_video.workflows.build import read_split
from hiera_video.workflows.extract import extract_features, resolve_config


def main() -> None:
    """Extract, search and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True, help="out_dir of a finished run")
    parser.add_argument("--out", type=Path, help="write to this file instead")
    arguments = parser.parse_args()
    config = resolve_config(arguments.run)
    labels = [item.label for item in read_split(config, "val").records]
    with tempfile.TemporaryDirectory() as folder:
        store: hv.FeatureStore = extract_features(arguments.run, str(config.data.val), folder)
        product, faiss = (SearchIndex(store, use_faiss=use_faiss) for use_faiss in (False, True))
        equal, first, five = 0, 0, 0.0
        for video in store:
            options = {"exclude_rows": [video.row], "each_video_once": True}
            matches = faiss.search(video.features, 5, **options)
            equal += matches == product.search(video.features, 5, **options)
            hits = [labels[faiss.rows[match.index]] == labels[video.row] for match in matches]
            first, five = first + hits[0], five + sum(hits) / len(hits)
        total = len(store)
    chance = sum((count / total) ** 2 for count in Counter(labels).values())
    result = {
        "what": "share of videos whose nearest other video has the same class, and share of the "
        "five nearest",
        "command": " ".join(["python", *sys.argv]),
        "videos": total,
        "nearest_same_class": round(100 * first / total, 2),
        "five_nearest_same_class": round(100 * five / total, 2),
        "chance": round(100 * chance, 2),
        "faiss_and_product_equal": equal,
    }
    print(record("search_motion", result, arguments.out))


if __name__ == "__main__":
    main()
