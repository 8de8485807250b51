"""Write the MP4 files and lists of the GPU check's training runs; imports no torch.

    python benchmarks/gpu_videos.py FOLDER --distinct 32 --links 640

`train.csv` lists `--links` videos of ten seconds, 320x240: hard links to `--distinct` files.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

from data_videos import FPS, scene

from hiera_video.video.encode import write_video

CLASSES = 4


def main() -> None:
    """Write the files on all cores."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--distinct", type=int, default=32)
    parser.add_argument("--links", type=int, default=640)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--size", type=int, nargs=2, default=(320, 240), metavar=("W", "H"))
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    write = partial(write_scene, folder, tuple(arguments.size), arguments.frames)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        files = list(pool.map(write, range(arguments.distinct)))
    names = [f"{number:04d}.mp4" for number in range(arguments.links)]
    for number, name in enumerate(names):
        (folder / name).unlink(missing_ok=True)
        (folder / name).hardlink_to(files[number % len(files)])
    lines = [f"{name} {number % CLASSES}\n" for number, name in enumerate(names)]
    (folder / "train.csv").write_text("".join(lines))
    (folder / "half.csv").write_text("".join(lines[: len(lines) // 2]))


def write_scene(folder: Path, size: tuple[int, int], frames: int, seed: int) -> Path:
    """Write one file and return its path."""
    path = folder / f"scene_{seed}.mp4"
    write_video(path, islice(scene(*size, seed), frames), fps=FPS)
    return path


if __name__ == "__main__":
    main()
