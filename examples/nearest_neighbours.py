"""Extract the features of a folder of videos, and list the most similar pairs of videos.

python examples/nearest_neighbours.py runs/x videos/ features/
"""

from __future__ import annotations

import sys

import torch
from torch.nn.functional import normalize

import hiera_video as hv


def main(weights: str, videos: str, output: str) -> None:
    store = hv.extract_features(weights, videos, output)  # finished shards are not repeated
    readable = [video for video in store if len(video.features)]
    mean = torch.stack([video.features.float().mean(dim=0) for video in readable])
    unit = normalize(mean - mean.mean(dim=0), dim=1)
    similarity = unit @ unit.T
    similarity.fill_diagonal_(-1)
    best, neighbour = similarity.max(dim=1)
    for index in best.argsort(descending=True)[:10].tolist():
        other = readable[int(neighbour[index])]
        print(f"{best[index]:.3f}  {readable[index].path}  {other.path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
