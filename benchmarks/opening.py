"""Opening a video and reading one 16×4 clip from its middle, with and without an index of packets; and from a shard.

    python benchmarks/opening.py                  # on an otherwise idle machine; a minute
    python benchmarks/opening.py --rounds 2       # to see that it works

Each round reads every kind of file in each of the ways in turns; the figure is the median of the rounds' ratios. Files are
in the page cache: what a slow disk adds to reading a whole file, the index saves too. Writes `results/opening.json`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
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
KINDS = {  # name: seconds, size, frames from key frame to key frame
    "10 s, 340x256, key frames every 250": (10, (256, 340), 250),
    "10 s, 340x256, key frames every 32": (10, (256, 340), 32),
    "1 min, 320x240, key frames every 250": (60, (240, 320), 250),
    "5 min, 160x120, key frames every 250": (300, (120, 160), 250),
}


def main() -> int:
    """Make the files, measure, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, (kind, (seconds, size, gop)) in enumerate(KINDS.items()):
            path = folder / f"{number}.mp4"
            write_video(path, scene(seconds * FPS, *size), fps=FPS, gop=gop, bframes=3, crf=23)
            with PyAVReader(str(path)) as video:
                remembered = video.packet_index_row()
            assert remembered is not None
            index = IndexedPyAV(index=str(folder / f"{number}.index"))
            write_index(Path(index.index), [(str(path), *remembered)])
            one = Manifest(
                records=(Record(path=str(path), label=None, row=0),),
                class_names=None,
                multi_label=False,
                source="",
            )
            source = (
                read_manifest(str(write_shards(one, folder / "shards", str(number))))
                .records[0]
                .source
            )
            clip = [seconds * FPS // 2 + 4 * i for i in range(16)]
            ways: dict[str, Callable[[], Any]] = {
                "open": lambda path=path: open_video(path).close(),
                "open_indexed": lambda path=path, index=index: open_video(path, index).close(),
                "clip": lambda path=path, clip=clip: read(path, clip),
                "clip_indexed": lambda path=path, clip=clip, index=index: read(path, clip, index),
                "clip_in_shard": lambda source=source, clip=clip: read(source, clip),
            }
            assert np.array_equal(read(path, clip), read(path, clip, index))
            results.append(measured(kind, path, len(remembered[1]), ways, rounds))
            print(results[-1], flush=True)
    facts = {
        "command": "python benchmarks/opening.py",
        "load_average": os.getloadavg()[0],
        "rounds": rounds,
    }
    print(record("opening", {**facts, "results": results}))
    return 0


def measured(
    kind: str, path: Path, index_bytes: int, ways: dict[str, Callable[[], Any]], rounds: int
) -> dict[str, Any]:
    """Ratios and milliseconds of one kind of file."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, act in ways.items():
            began = time.perf_counter()
            act()
            times[way].append(time.perf_counter() - began)

    def ratio(slow: str, quick: str) -> float:
        return round(statistics.median(a / b for a, b in zip(times[slow], times[quick])), 2)

    return {
        "kind": kind,
        "file_bytes": path.stat().st_size,
        "index_bytes": index_bytes,
        "opening_quicker_by": ratio("open", "open_indexed"),
        "a_clip_quicker_by": ratio("clip", "clip_indexed"),
        "a_clip_in_a_shard_slower_by": ratio("clip_in_shard", "clip"),
        "milliseconds": {
            way: round(1000 * statistics.median(seconds), 2) for way, seconds in times.items()
        },
    }


def scene(count: int, height: int, width: int) -> Iterator[Any]:
    """A panned texture with grain."""
    noise = np.random.default_rng(0)
    texture = (
        noise.integers(0, 256, (height // 8 + 40, width // 8 + 40, 3))
        .repeat(8, axis=0)
        .repeat(8, axis=1)
    )
    for number in range(count):
        top, left = int(80 + 70 * np.sin(number / 40)), int(80 + 70 * np.cos(number / 55))
        picture = texture[top : top + height, left : left + width] + noise.normal(
            0, 4, (height, width, 3)
        )
        yield picture.clip(0, 255).astype(np.uint8)


def read(source: Any, clip: list[int], backend: Any = "pyav") -> Any:
    """The frames, from a file opened anew."""
    with open_video(source, backend) as video:
        return video.frames(clip)


if __name__ == "__main__":
    sys.exit(main())
