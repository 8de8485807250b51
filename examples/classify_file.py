"""Classify a video with a trained run, a saved model or published weights.

python examples/classify_file.py clip.mp4 runs/x
python examples/classify_file.py clip.mp4 hiera_base_16x224.mae_k400_ft_k400
"""

from __future__ import annotations

import sys

import torch

import hiera_video as hv


def main(video: str, weights: str) -> None:
    run = hv.load(weights)  # model, test transform and class names
    run.model.to("cuda" if torch.cuda.is_available() else "cpu")
    for prediction in hv.predict(run, video, topk=5):
        print(f"{prediction.probability:6.1%}  {prediction.label}")
    start, end = prediction.clip_seconds[0]
    print(
        f"averaged over {len(prediction.clip_seconds)} clips; the first is {start:.1f}–{end:.1f} s"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
