"""CPU time of 15 views of a video (5 clips × 3 crops) against decoding their 5 clips once.

    python benchmarks/views.py            # on an otherwise idle machine; half a minute
    python benchmarks/views.py --rounds 2 --videos 1    # a try

The videos are 10 s of H.264 of 340×256 with B-frames, a view is 16×224×224. `views` is everything
that `TestViews` does (open, decode, resize, normalise), on one thread; `batches` adds the copies
into the model's batches of 8. Both alternate with decoding alone; a figure is the median of the
rounds' ratios. Writes `results/views.json`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from record import record

from hiera_video.data.dataset import TestViews, VideoViews
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.sampling import ClipConfig, frame_range_of, test_clips
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.video import open_video
from hiera_video.video.encode import write_video

WIDTH, HEIGHT, FPS, CLIPS, CROPS, BATCH = 340, 256, 30, 5, 3, 8


def main() -> int:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--videos", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    from data_videos import scene  # the same moving picture as in `data.py`

    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name) / f"{seed}.mp4" for seed in range(arguments.videos)]
        for seed, path in enumerate(paths):
            write_video(path, scene(WIDTH, HEIGHT, seed), fps=FPS, gop=250, bframes=3, crf=23)
        result = measure(paths, arguments.rounds)
    facts = {
        "command": " ".join(["python", *sys.argv]),
        "load_average": os.getloadavg()[0],
        "rounds": arguments.rounds,
    }
    print(
        result,
        record("views", {**facts, **result})
        if arguments.rounds >= 5
        else "too few rounds to be recorded",
    )
    return 0


def measure(paths: list[Path], rounds: int) -> dict[str, Any]:
    """Return the ratios to decoding, and the milliseconds of a video."""
    config = ClipConfig(num_frames=16, frame_stride=4)
    records = tuple(Record(path=str(path), label=0, row=row) for row, path in enumerate(paths))
    manifest = Manifest(records=records, class_names=None, multi_label=False, source="benchmark")
    dataset = TestViews(
        manifest, config, EvalTransform(224, CROPS, (0.45,) * 3, (0.225,) * 3), num_clips=CLIPS
    )
    batch = torch.zeros(BATCH, 3, 16, 224, 224)
    wanted = []
    for path in paths:
        with open_video(path) as video:
            clips = test_clips(frame_range_of(video.times, video.fps, None, None), config, CLIPS)
        wanted.append(sorted({index for clip in clips for index in clip}))

    def decode(row: int) -> None:
        with open_video(paths[row]) as video:
            video.frames(wanted[row])

    def views(row: int) -> None:
        assert isinstance(dataset[row], VideoViews)

    def batches(row: int) -> None:
        found = dataset[row]
        assert isinstance(found, VideoViews)
        each = list(found.crops)
        for start in range(0, len(each), BATCH):
            group = each[start : start + BATCH]
            torch.stack(group, out=batch[: len(group)])

    ways: dict[str, Callable[[int], None]] = {"decode": decode, "views": views, "batches": batches}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            began = time.process_time()
            for row in range(len(paths)):
                way(row)
            if number:  # the first is a warm-up
                times[name].append(1000 * (time.process_time() - began) / len(paths))
    return {
        "ratio_of_15_views_to_decoding": round(_ratio(times["views"], times["decode"]), 2),
        "ratio_with_the_copies_into_batches": round(_ratio(times["batches"], times["decode"]), 2),
        "milliseconds_a_video": {
            name: round(statistics.median(found), 1) for name, found in times.items()
        },
    }


def _ratio(times: list[float], others: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(times, others, strict=True))


if __name__ == "__main__":
    sys.exit(main())
