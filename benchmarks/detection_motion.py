"""Show that a detector answers for the box in question where the whole frame cannot.

    python benchmarks/detection_motion.py --work runs/detection_motion

On the set of movers (two to four in a video, no two alike): trains the detector of
configs/motion_movers_hiera_micro.yaml from a classifier of the motion set, tests it on a detector's
boxes, on boxes moved off their movers and on the whole frame as the box; and trains a classifier of
whole frames on the same videos, from the same weights, to name all motions that a video shows. Its
best answer for every mover of a video is the class of its highest score. Each step is made once;
the same command continues.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from record import record

ROOT = Path(__file__).parents[1]
CONFIG = "motion_movers_hiera_micro"


class Steps:
    """Commands in a folder, each run once; their CPU seconds are kept in `steps.json`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "steps.json"
        self.seconds: dict[str, float] = {}
        if self.file.exists():
            self.seconds = json.loads(self.file.read_text())

    def run(self, name: str, *words: str) -> None:
        """Run a command of hiera-video unless it has been run."""
        if name in self.seconds:
            return
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "hiera_video", *words]
        subprocess.run(command, cwd=self.folder, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self.seconds[name] = round(spent, 1)
        self.file.write_text(json.dumps(self.seconds, indent=1) + "\n")


def main() -> None:
    """Run the steps that are asked for, and record the results when all are done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=ROOT / "runs/detection_motion")
    parser.add_argument("--only", choices=("detector", "whole"), help="this part alone")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of both trainings")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    steps = Steps(work)
    prepare(steps)
    if arguments.only != "whole":
        run_detector(steps, arguments.overrides)
    if arguments.only != "detector":
        run_whole_frames(steps, arguments.overrides)
    if arguments.only is None:
        print(record("detection_motion", summary(steps)))


def prepare(steps: Steps) -> None:
    """Make both sets and train the classifier."""
    steps.run("motion set", "prepare", "motion", "output=data/motion")
    steps.run("classifier", "train", "--cfg", "motion_hiera_micro")
    steps.run("set of movers", "prepare", "motion", "output=data/motion_movers", "--movers", "4")


def run_detector(steps: Steps, overrides: list[str]) -> None:
    """Train the detector, and test it on the boxes and on wrong ones."""
    steps.run("detector", "train", "--cfg", CONFIG, *overrides)
    run = ["test", "--run", f"runs/{CONFIG}", f"test.checkpoint=runs/{CONFIG}/checkpoints/last"]
    steps.run("test", *run)
    movers = steps.folder / "data/motion_movers"
    for name in ("whole_frame", "moved"):
        write_other_boxes(movers / "val.csv", movers / f"val_{name}.csv", name)
        steps.run(f"test {name}", *run, f"data.val=data/motion_movers/val_{name}.csv",
                  "detect.boxes=null", f"out_dir=runs/{name}")  # fmt: skip


def write_other_boxes(source: Path, target: Path, kind: str) -> None:
    """Write the labelled lines with the whole frame as the box, or with each next mover's box."""
    rows = list(csv.reader(source.open()))
    by_video: dict[str, list[list[str]]] = defaultdict(list)
    for row in rows:
        by_video[row[0]].append(row)
    lines = []
    for movers in by_video.values():
        for number, row in enumerate(movers):
            other = movers[(number + 1) % len(movers)][2:6]
            box = ["0", "0", "1", "1"] if kind == "whole_frame" else other
            lines.append(",".join([*row[:2], *box, *row[6:]]) + "\n")
    target.write_text("".join(lines))


def run_whole_frames(steps: Steps, overrides: list[str]) -> None:
    """Train a classifier of whole frames on the motions of each video, and test it."""
    movers, whole = steps.folder / "data/motion_movers", steps.folder / "data/whole_frames"
    whole.mkdir(exist_ok=True)
    names = [line.split('"')[1] for line in (movers / "action_list.pbtxt").open() if '"' in line]
    (whole / "labels.txt").write_text("".join(f"{name}\n" for name in names))
    for split in ("train", "val"):
        found = labels_of_videos(movers / f"{split}.csv")
        lines = [
            f"videos/{video}.mp4 {';'.join(map(str, labels))}\n" for video, labels in found.items()
        ]
        (whole / f"{split}.csv").write_text("".join(lines))
    keys = [*(f"data.{split}=data/whole_frames/{split}.csv" for split in ("train", "val")),
            "data.root=data/motion_movers", "train.task=classify", "detect.boxes=null",
            "augment.box_jitter=0", "test.clips=1", "out_dir=runs/whole_frames"]  # fmt: skip
    steps.run("whole frames", "train", "--cfg", CONFIG, *keys, *overrides)
    steps.run("test of whole frames", "test", "--run", "runs/whole_frames")


def labels_of_videos(listing: Path) -> dict[str, list[int]]:
    """Return the class indices of the movers of each video."""
    labels: dict[str, list[int]] = defaultdict(list)
    for row in csv.reader(listing.open()):
        labels[row[0]].append(int(row[6]) - 1)
    return labels


def summary(steps: Steps) -> dict[str, Any]:
    """Return what the runs reached, in percent, and the CPU seconds of each step."""
    runs = steps.folder / "runs"
    truth = labels_of_videos(steps.folder / "data/motion_movers/val.csv")
    boxes = sum(map(len, truth.values()))
    results = {
        name: json.loads((runs / folder / "results.json").read_text())
        for name, folder in (("boxes", CONFIG), ("moved", "moved"), ("whole_frame", "whole_frame"))
    }
    return {
        "what": "motion of each of two to four movers: a detector, and classifiers of whole frames",
        "command": "python benchmarks/detection_motion.py",
        "videos": len(truth),
        "boxes": boxes,
        "detector": {key: results["boxes"][key] for key in ("mAP", "box_accuracy", "box_recall")},
        "detector, box of another mover of the video": results["moved"]["box_accuracy"],
        "detector, whole frame as the box": results["whole_frame"]["box_accuracy"],
        "classifier of whole frames, same videos": whole_frame_accuracy(runs, truth),
        "one right answer a video": round(100 * len(truth) / boxes, 2),
        "cpu_seconds": steps.seconds,
    }


def whole_frame_accuracy(runs: Path, truth: dict[str, list[int]]) -> dict[str, float]:
    """Return how often the highest score of a video is the class of a mover, by movers."""
    results = json.loads((runs / "whole_frames/results.json").read_text())
    with np.load(runs / "whole_frames/predictions.npz") as arrays:
        top = arrays["logits"].mean(axis=1).argmax(axis=1)[arrays["rows"].argsort()]
    right = sum(int(answer) in labels for answer, labels in zip(top, truth.values(), strict=True))
    boxes = sum(map(len, truth.values()))
    return {"mAP of the motions in a video": results["mAP"],
            "accuracy for a mover": round(100 * right / boxes, 2)}  # fmt: skip


if __name__ == "__main__":
    main()
