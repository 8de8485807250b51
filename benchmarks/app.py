"""Time and memory of the demo page: a clip of 10 s, and 100 uploads in a row.

    python benchmarks/app.py --run runs/motion_hard_hiera_micro      # after `hiera-video demo`

Starts `hiera-video app` and uploads as a browser does. Writes `results/app.json`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from record import record

from hiera_video.video.encode import write_video

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "app"))
from page_client import Visitor, served

REPEATS, UPLOADS, WARM = 5, 100, 10
WIDTH, HEIGHT, FPS, SECONDS = 640, 480, 30, 10


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="run of the demo")
    parser.add_argument("--uploads", type=int, default=UPLOADS)
    parser.add_argument("--note", default="", help="what else the machine did")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        long, short = folder / "long.mp4", folder / "short.mp4"
        write_video(long, frames(FPS * SECONDS, WIDTH, HEIGHT), fps=FPS)
        write_video(short, frames(24, 64, 48), fps=12)
        with served(["--run", str(Path(arguments.run).resolve())], folder) as (address, process):
            visitor, pid = Visitor(address), process.pid
            answer(visitor, long)
            wall, cpu = [], []
            for _ in range(REPEATS):
                started, before = time.perf_counter(), processor_seconds(pid)
                answer(visitor, long)
                wall.append(round(time.perf_counter() - started, 2))
                cpu.append(round(processor_seconds(pid) - before, 2))
                print(f"{wall[-1]} s, {cpu[-1]} s of processor time", flush=True)
            memory = []
            for number in range(1, arguments.uploads + 1):
                answer(visitor, short)
                if number % WARM == 0:
                    memory.append(megabytes(pid))
                    print(f"{number} uploads: {memory[-1]} MB", flush=True)
            left = [path.name for path in folder.glob("tmp/hiera-video-app-*/*")]
    result = {
        "command": "python benchmarks/app.py --run runs/motion_hard_hiera_micro",
        "note": arguments.note,
        "clip": f"{SECONDS} s, {WIDTH}x{HEIGHT}, {FPS} fps, h264",
        "seconds": wall,
        "median_seconds": statistics.median(wall),
        "processor_seconds": cpu,
        "median_processor_seconds": statistics.median(cpu),
        "uploads": arguments.uploads,
        "megabytes_every_ten_uploads": memory,
        "folders_left": sorted(left),
    }
    print(record("app", result))


def frames(count: int, width: int, height: int) -> Iterator[np.ndarray]:
    """Yield frames of a square that moves over noise, which costs the decoder what films do."""
    noise = np.random.default_rng(0).integers(60, 120, (height, width, 3)).astype(np.uint8)
    for number in range(count):
        frame = np.roll(noise, number, axis=1)
        left = number * (width - height // 4) // count
        frame[height // 3 : height // 3 + height // 4, left : left + height // 4] = 230
        yield frame


def answer(visitor: Visitor, film: Path) -> None:
    """Upload a film and wait for its answer."""
    (path,) = visitor.upload(film.name, film.read_bytes()).json()
    found = visitor.ask(path)
    assert "%" in found.get("answer", ""), found


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = sum(int(fields[place]) for place in (11, 12, 13, 14))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return ticks / 100 + sum(processor_seconds(int(child)) for child in children)


def megabytes(pid: int) -> int:
    """Return the memory of a process and its children."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (size,) = (int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return size // 1024 + sum(megabytes(int(child)) for child in children)


if __name__ == "__main__":
    main()
