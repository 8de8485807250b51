"""Complete training samples on one thread: ours against PIL, and four clips of a video against one.

    python benchmarks/data_samples.py        # on an otherwise idle machine; five minutes
    python benchmarks/data_samples.py --rounds 1 --samples 4 --out /tmp/x.json      # a try

Samples of 16×4 frames at 224, from H.264 of 340×256 with B-frames. All kinds load the same samples
of the same files in turns: open the file, decode, RandAugment (7, 0.5), random resized crop, flip,
normalise, erase. A ratio is that of one round's times, given as the median of the rounds with its
range. Writes `results/data_samples.json`.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_pil import PilRandAugment, PilTransform
from data_videos import FPS, VIDEOS, scene
from record import record

from hiera_video.data.config import AugmentConfig
from hiera_video.data.dataset import TrainClips
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.clip_sample import ClipSample
from hiera_video.data.transforms.train_eval import TrainTransform
from hiera_video.utils.profiler import Stopwatch
from hiera_video.video.encode import write_video

SIZE, WIDTH, HEIGHT = 224, 340, 256
FINE_TUNING = AugmentConfig(rand_augment=7, erase=0.25)
PRE_TRAINING = AugmentConfig(scale=(0.5, 1.0))
CLIP = ClipConfig(num_frames=16, frame_stride=4)


def main() -> int:
    """Measure and record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--samples", type=int, default=40, help="samples of one round")
    parser.add_argument(
        "--out", type=Path, help="file to write instead of results/data_samples.json"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in range(VIDEOS):
            write_video(
                folder / f"{seed}.mp4",
                scene(WIDTH, HEIGHT, seed),
                fps=FPS,
                gop=250,
                bframes=3,
                crf=23,
            )
        (folder / "list.csv").write_text("".join(f"{seed}.mp4 0\n" for seed in range(VIDEOS)))
        kinds = datasets(folder / "list.csv")
        rounds = time_in_turns(kinds, arguments.rounds, arguments.samples)
        shares = stages(kinds["ours"], arguments.samples)
    pil = {name: ratio(rounds[name], rounds["ours"]) for name in ("pil", "pil_rand_augment_alone")}
    repeats = {
        "pre_training": ratio(rounds["pre_training_4"], rounds["pre_training_1"]),
        "pre_training_finished_on_the_device": ratio(
            rounds["unfinished_4"], rounds["unfinished_1"]
        ),
        "pre_training_reading_alone": ratio(rounds["reading_4"], rounds["reading_1"]),
        "fine_tuning": ratio(rounds["fine_tuning_4"], rounds["ours"]),
    }
    result = {
        "command": " ".join(["python", *sys.argv]),
        "load_average": os.getloadavg()[0],
        "rounds": arguments.rounds,
        "samples": arguments.samples,
        "times_of_ours": pil,
        "four_clips_to_one": repeats,
        "milliseconds": {
            name: round(1000 * statistics.median(times), 1) for name, times in rounds.items()
        },
        "milliseconds_of_ours_by_stage": shares,
    }
    print(record("data_samples", result, arguments.out), result, sep="\n")
    return 0


def datasets(manifest: Path) -> dict[str, TrainClips]:
    """Return the kinds of samples to measure, by name.

    Four clips of pre-training are different clips of a video; of fine-tuning, one clip augmented
    four times.
    """

    def make(
        transform: Callable[..., Any], repeats: int = 1, *, independent: bool = False
    ) -> TrainClips:
        clip = replace(CLIP, repeats=repeats)
        return TrainClips(
            read_manifest(str(manifest)), clip, transform, seed=0, independent_repeats=independent
        )

    return {
        "ours": make(TrainTransform(FINE_TUNING, SIZE)),
        "pil": make(PilTransform(FINE_TUNING, SIZE)),
        "pil_rand_augment_alone": make(PilRandAugment(FINE_TUNING, SIZE)),
        "fine_tuning_4": make(TrainTransform(FINE_TUNING, SIZE), 4),
        "pre_training_1": make(TrainTransform(PRE_TRAINING, SIZE), independent=True),
        "pre_training_4": make(TrainTransform(PRE_TRAINING, SIZE), 4, independent=True),
        "unfinished_1": make(
            TrainTransform(replace(PRE_TRAINING, device="model"), SIZE), independent=True
        ),
        "unfinished_4": make(
            TrainTransform(replace(PRE_TRAINING, device="model"), SIZE), 4, independent=True
        ),
        "reading_1": make(keep_frames, independent=True),
        "reading_4": make(keep_frames, 4, independent=True),
    }


def keep_frames(frames: np.ndarray, generator: random.Random) -> ClipSample:
    """Return the frames as they are."""
    return ClipSample(pixels=torch.from_numpy(frames))


def time_in_turns(
    kinds: dict[str, TrainClips], rounds: int, samples: int
) -> dict[str, list[float]]:
    """Return the seconds of a sample in each round, by kind.

    The first sample of each kind, which imports and allocates, is not timed.
    """
    torch.set_num_threads(1)
    for dataset in kinds.values():
        dataset[0, 0]
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, dataset in kinds.items():
            began = time.perf_counter()
            for number in range(samples):
                dataset[divmod(number, VIDEOS)]
            seconds[name].append((time.perf_counter() - began) / samples)
    return seconds


def stages(dataset: TrainClips, samples: int) -> dict[str, float]:
    """Return the milliseconds of each stage of a sample."""
    with Stopwatch() as watch:
        for number in range(samples):
            dataset[divmod(number, VIDEOS)]
    return {
        name: round(1000 * spent / samples, 2) for name, spent in watch.seconds.items() if spent
    }


def ratio(these: list[float], those: list[float]) -> dict[str, float]:
    """Return the ratio of two kinds' times: the median of the rounds, and the range."""
    found = [a / b for a, b in zip(these, those)]
    return {
        "median": round(statistics.median(found), 2),
        "low": round(min(found), 2),
        "high": round(max(found), 2),
    }


if __name__ == "__main__":
    sys.exit(main())
