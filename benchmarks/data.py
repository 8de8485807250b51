"""Reading 16×4 clips from H.264 with B-frames: `open_video` against decord's `get_batch`.

    python benchmarks/data.py          # on an otherwise idle machine; a minute or two

One thread; each clip opens its file. Both decoders read the same clips in turn; a figure is the
median of the rounds' ratios. Writes `results/data.json`. The exit code is 1 if the frames differ.
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
Clips = list[tuple[int, list[int]]]
"""Number of the video, and frame numbers."""


def main() -> int:
    """Measure each size and record the results."""
    with tempfile.TemporaryDirectory() as name:
        results = [measure(width, height, Path(name)) for width, height in SIZES]
    facts = {
        "command": "python benchmarks/data.py",
        "load_average": os.getloadavg()[0],
        "rounds": ROUNDS,
        "clips": CLIPS,
    }
    print(record("data", {**facts, "results": results}))
    return int(any(result["largest_pixel_difference"] > 0 for result in results))


def measure(width: int, height: int, folder: Path) -> dict[str, Any]:
    """Return ratios and milliseconds for one frame size."""
    # x264's default distance of key frames, 250, as in most films; and our re-encoding's, 32
    paths = write_videos(folder, width, height, gop=250)
    short_gops = write_videos(folder, width, height, gop=32)
    draws = random.Random(0)
    clips = [
        (place, random_clip(draws)) for place in (draws.randrange(VIDEOS) for _ in range(CLIPS))
    ]
    difference = max(
        float(np.abs(ours(paths[i], clip).astype(int) - theirs(paths[i], clip)).max())
        for i, clip in clips[:4]
    )
    rounds: dict[str, list[float]] = {"ours": [], "decord": [], "ours_gop32": []}
    for _ in range(ROUNDS):
        rounds["ours"].append(timed(ours, paths, clips))
        rounds["decord"].append(timed(theirs, paths, clips))
        rounds["ours_gop32"].append(timed(ours, short_gops, clips))

    def ratio(key: str) -> float:
        return round(statistics.median(b / a for a, b in zip(rounds[key], rounds["decord"])), 2)

    result = {
        "size": f"{width}x{height}",
        "largest_pixel_difference": difference,
        "ratio_to_decord": ratio("ours"),
        "ratio_from_keyframes_every_32_to_decord_on_the_original": ratio("ours_gop32"),
        "milliseconds_a_clip": {
            key: round(1000 * statistics.median(times) / CLIPS, 1) for key, times in rounds.items()
        },
    }
    print(result, flush=True)
    return result


def write_videos(folder: Path, width: int, height: int, *, gop: int) -> list[Path]:
    """Write the videos of one size with three B-frames."""
    paths = [folder / f"{width}_{gop}_{seed}.mp4" for seed in range(VIDEOS)]
    for seed, path in enumerate(paths):
        write_video(path, scene(width, height, seed), fps=FPS, gop=gop, bframes=3, crf=23)
    return paths


def random_clip(draws: random.Random) -> list[int]:
    """Draw the frame numbers of a 16×4 clip."""
    return dense_indices(draws.uniform(0, FRAMES - 64), span=64, count=16, num_frames=FRAMES)


def ours(path: Path, clip: list[int]) -> Any:
    with open_video(path) as video:
        return video.frames(clip)


def theirs(path: Path, clip: list[int]) -> Any:
    return decord.VideoReader(str(path), num_threads=1).get_batch(clip).asnumpy()


def timed(read: Callable[[Path, list[int]], Any], paths: list[Path], clips: Clips) -> float:
    """Return the seconds of reading all clips."""
    began = time.perf_counter()
    for place, clip in clips:
        read(paths[place], clip)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
