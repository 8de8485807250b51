"""Does search find what moves alike? The nearest other video of each held-out one of the motion set, and its class.

    python benchmarks/search_motion.py --run runs/motion_hiera_micro           # needs data/motion (make demo)

Extracts features of the run's data.val, then takes each video as an example. Writes results/search_motion.json.
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
from hiera_video.workflows.extract import resolve_config, extract_features


def main() -> None:
    """Extract, search, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True, help="out_dir of a finished run")
    parser.add_argument("--out", type=Path, help="instead of results/search_motion.json")
    arguments = parser.parse_args()
    config = resolve_config(arguments.run)
    labels = [item.label for item in read_split(config, "val").records]
    with tempfile.TemporaryDirectory() as folder:
        store: hv.FeatureStore = extract_features(arguments.run, str(config.data.val), folder)
        engines = {
            name: SearchIndex(store, use_faiss=name == "faiss") for name in ("product", "faiss")
        }
        same, first, five, total = 0, 0, 0.0, 0
        for video in store:
            found = {
                name: index.search(
                    video.features, 5, exclude_rows=[video.row], each_video_once=True
                )
                for name, index in engines.items()
            }
            same += found["product"] == found["faiss"]
            hits = [
                labels[engines["faiss"].rows[match.index]] == labels[video.row]
                for match in found["faiss"]
            ]
            first, five, total = first + hits[0], five + sum(hits) / len(hits), total + 1
    result = {
        "what": "videos whose nearest other video has the same class, and the share of the five nearest that have it",
        "command": " ".join(["python", *sys.argv]),
        "videos": total,
        "nearest_same_class": round(100 * first / total, 2),
        "five_nearest_same_class": round(100 * five / total, 2),
        "chance": round(100 * sum((count / total) ** 2 for count in Counter(labels).values()), 2),
        "faiss_and_product_equal": same,
    }
    print(record("search_motion", result, arguments.out))


if __name__ == "__main__":
    main()
