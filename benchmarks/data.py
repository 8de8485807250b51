"""Reading 16×4 clips from H.264 with B-frames: ours against decord's `get_batch`, one thread, files opened anew.

    python benchmarks/data.py          # on an otherwise idle machine; a minute or two

Both read the same clips of the same files in turns; the ratio is that of one round's times, the figure the median of
the rounds. Writes `results/data.json`. Exit code 1 where the frames differ.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import decord
import numpy as np
from data_videos import FPS, FRAMES, VIDEOS, scene
from record import record

from hiera_video.data.sampling import dense_indices
from hiera_video.video import open_video
from hiera_video.video.encode import write_video

ROUNDS, CLIPS = 7, 20
SIZES = ((340, 256), (640, 272))


def main() -> int:
    """Measure each size; compare the pixels first."""
    results, differs = [], False
    with tempfile.TemporaryDirectory() as name:
        for width, height in SIZES:
            paths = [Path(name) / f"{width}_{seed}.mp4" for seed in range(VIDEOS)]
            for seed, path in enumerate(paths):
                # a film's keyframes are seldom: x264's default of 250, and three B-frames
                write_video(path, scene(width, height, seed), fps=FPS, gop=250, bframes=3, crf=23)
            short = [path.with_stem(path.stem + "_gop32") for path in paths]
            for seed, path in enumerate(short):
                write_video(path, scene(width, height, seed), fps=FPS, gop=32, bframes=3, crf=23)
            draws = random.Random(0)
            clips = [
                (
                    place,
                    dense_indices(
                        draws.uniform(0, FRAMES - 64), span=64, count=16, num_frames=FRAMES
                    ),
                )
                for place in (draws.randrange(VIDEOS) for _ in range(CLIPS))
            ]
            difference = max(
                float(np.abs(ours(paths[i], clip).astype(int) - theirs(paths[i], clip)).max())
                for i, clip in clips[:4]
            )
            differs |= difference > 0
            rounds: dict[str, list[float]] = {"ours": [], "decord": [], "ours_gop32": []}
            for _ in range(ROUNDS):
                for key, read, files in (
                    ("ours", ours, paths),
                    ("decord", theirs, paths),
                    ("ours_gop32", ours, short),
                ):
                    rounds[key].append(timed(read, files, clips))
            ratio = statistics.median(b / a for a, b in zip(rounds["ours"], rounds["decord"]))
            recoded = statistics.median(
                b / a for a, b in zip(rounds["ours_gop32"], rounds["decord"])
            )
            results.append(
                {
                    "size": f"{width}x{height}",
                    "largest_pixel_difference": difference,
                    "ratio_to_decord": round(ratio, 2),
                    "ratio_from_keyframes_every_32_to_decord_on_the_original": round(recoded, 2),
                    "milliseconds_a_clip": {
                        key: round(1000 * statistics.median(times) / CLIPS, 1)
                        for key, times in rounds.items()
                    },
                }
            )
            print(results[-1], flush=True)
    facts = {
        "command": "python benchmarks/data.py",
        "load_average": os.getloadavg()[0],
        "rounds": ROUNDS,
        "clips": CLIPS,
    }
    print(record("data", {**facts, "results": results}))
    return int(differs)


def ours(path: Path, clip: list[int]) -> Any:
    with open_video(path) as video:
        return video.frames(clip)


def theirs(path: Path, clip: list[int]) -> Any:
    return decord.VideoReader(str(path), num_threads=1).get_batch(clip).asnumpy()


def timed(
    read: Callable[[Path, list[int]], Any], paths: list[Path], clips: list[tuple[int, list[int]]]
) -> float:
    began = time.perf_counter()
    for place, clip in clips:
        read(paths[place], clip)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
