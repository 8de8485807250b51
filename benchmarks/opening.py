"""Opening videos and reading a 16×4 clip, with and without a packet index, and from a tar shard.

    python benchmarks/opening.py                  # on an otherwise idle machine; a minute
    python benchmarks/opening.py --rounds 2       # only to check that it runs

Each round reads every file in each way in turn; a figure is the median of the rounds' ratios. The
files are in the page cache; on a slow disk the index saves reading the whole file as well. Writes
`results/opening.json`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from record import record

from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.prepare.tar_writer import write_shards
from hiera_video.video import open_video
from hiera_video.video.encode import write_video
from hiera_video.video.options import IndexedPyAV
from hiera_video.video.packet_index import write_index
from hiera_video.video.pyav import PyAVReader

FPS = 30


@dataclass(frozen=True)
class Kind:
    """A kind of file that is measured."""

    seconds: int
    width: int
    height: int
    gop: int

    @property
    def name(self) -> str:
        """Name in the results."""
        minutes = self.seconds // 60
        length = f"{minutes} min" if minutes else f"{self.seconds} s"
        return f"{length}, {self.width}x{self.height}, key frames every {self.gop}"


KINDS = (
    Kind(10, 340, 256, 250),
    Kind(10, 340, 256, 32),
    Kind(60, 320, 240, 250),
    Kind(300, 160, 120, 250),
)


def main() -> int:
    """Write the files, measure and record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    results = []
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as name:
            results.append(measure(kind, Path(name), rounds))
        print(results[-1], flush=True)
    facts = {
        "command": "python benchmarks/opening.py",
        "load_average": os.getloadavg()[0],
        "rounds": rounds,
    }
    print(record("opening", {**facts, "results": results}))
    return 0


def measure(kind: Kind, folder: Path, rounds: int) -> dict[str, Any]:
    """Return ratios and milliseconds of one kind of file."""
    path = folder / "video.mp4"
    frames = scene(kind.seconds * FPS, kind.height, kind.width)
    write_video(path, frames, fps=FPS, gop=kind.gop, bframes=3, crf=23)
    with PyAVReader(str(path)) as video:
        row = video.packet_index_row()
    assert row is not None
    index = IndexedPyAV(index=str(folder / "packets.index"))
    write_index(Path(index.index), [(str(path), *row)])
    in_shard = write_to_shard(path, folder / "shards")
    clip = [kind.seconds * FPS // 2 + 4 * i for i in range(16)]
    assert np.array_equal(read(path, clip), read(path, clip, index))
    times = in_turns(
        {
            "open": lambda: open_video(path).close(),
            "open_indexed": lambda: open_video(path, index).close(),
            "clip": lambda: read(path, clip),
            "clip_indexed": lambda: read(path, clip, index),
            "clip_in_shard": lambda: read(in_shard, clip),
        },
        rounds,
    )

    def ratio(slow: str, fast: str) -> float:
        return round(statistics.median(a / b for a, b in zip(times[slow], times[fast])), 2)

    return {
        "kind": kind.name,
        "file_bytes": path.stat().st_size,
        "index_bytes": len(row[1]),
        "opening_quicker_by": ratio("open", "open_indexed"),
        "a_clip_quicker_by": ratio("clip", "clip_indexed"),
        "a_clip_in_a_shard_slower_by": ratio("clip_in_shard", "clip"),
        "milliseconds": {
            way: round(1000 * statistics.median(seconds), 2) for way, seconds in times.items()
        },
    }


def in_turns(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each call, one per round."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, call in ways.items():
            began = time.perf_counter()
            call()
            times[way].append(time.perf_counter() - began)
    return times


def write_to_shard(path: Path, folder: Path) -> Any:
    """Write a video into a tar shard and return its source there."""
    records = (Record(path=str(path), label=None, row=0),)
    manifest = Manifest(records=records, class_names=None, multi_label=False, source="")
    index = write_shards(manifest, folder, "bench")
    return read_manifest(str(index)).records[0].source


def scene(count: int, height: int, width: int) -> Iterator[Any]:
    """Yield frames of a panned texture with grain."""
    noise = np.random.default_rng(0)
    texture = (
        noise.integers(0, 256, (height // 8 + 40, width // 8 + 40, 3))
        .repeat(8, axis=0)
        .repeat(8, axis=1)
    )
    for number in range(count):
        top, left = int(80 + 70 * np.sin(number / 40)), int(80 + 70 * np.cos(number / 55))
        panned = texture[top : top + height, left : left + width]
        frame = panned + noise.normal(0, 4, (height, width, 3))
        yield frame.clip(0, 255).astype(np.uint8)


def read(source: Any, clip: list[int], backend: Any = "pyav") -> Any:
    """Open the video and return the clip's frames."""
    with open_video(source, backend) as video:
        return video.frames(clip)


if __name__ == "__main__":
    sys.exit(main())
