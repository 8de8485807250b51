"""Measure how well segments are found in a generated video of ten minutes with 30 motions.

    make demo
    python benchmarks/segments_motion.py data/segments_motion --start runs/motion_hard_hiera_micro

Films consist of shots of the motion set's harder objects, pieces of photographs: each rests,
swaying a little, moves once in one of the eight ways, and rests again. The demo's micro Hiera is
fine-tuned on the labelled motions and on the background of films of a minute and a half,
thresholds are chosen on one film of ten minutes, and another one is the test. Training shares no
photograph with the other two. Films that are there are used again, and a training that was
interrupted is resumed. Writes `results/segments_motion.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from record import record

from hiera_video.cli.main import run_command
from hiera_video.data.manifest.class_names import write_class_names
from hiera_video.data.manifest.read import class_of_template
from hiera_video.data.prepare.motion_scenes import (
    AXES,
    CLASSES,
    FPS,
    draw_pictures,
    draw_scene,
    render,
)
from hiera_video.video.encode import write_video

SHORTEST, LONGEST = 18, 36
"""Frames of a motion: 1.5 to 3 s."""
REST = 8
"""Frames of rest before and after a motion, at least."""
SWAY = {"x": 1.0, "y": 1.0, "size": 0.03, "angle": 0.12}
"""Largest sway of a resting object, in the units of the motion set."""
TRAIN_FILMS, TRAIN_SHOTS, TRAIN_SHOT_SECONDS = 40, 16, 6
LONG_SHOTS, LONG_SHOT_SECONDS = 30, 20
"""Shots of the films of ten minutes."""


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One object at rest, in motion, and at rest."""

    frames: list[np.ndarray]
    label: int
    first: int
    """First frame of the motion."""
    stop: int


def main() -> None:
    """Make the films, train, choose thresholds, test and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder for the films and the run")
    parser.add_argument("--start", required=True, help="out_dir of the demo's last run")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--films", type=int, default=TRAIN_FILMS, help="films to train on")
    parser.add_argument("--out", type=Path, help="write to this file instead")
    arguments = parser.parse_args()
    folder, run, started = arguments.folder, arguments.folder / "run", time.process_time()
    lists = {
        "train": make_films(
            folder, "train", arguments.films, shots=TRAIN_SHOTS, shot_seconds=TRAIN_SHOT_SECONDS
        ),
        **{
            name: make_films(folder, name, 1, shots=LONG_SHOTS, shot_seconds=LONG_SHOT_SECONDS)
            for name in ("val", "test")
        },
    }
    keys = [f"data.{name}={path}" for name, path in lists.items()]
    keys += [f"train.epochs={arguments.epochs}", "data.background=0.5", f"out_dir={run}"]
    keys += ["data.workers=0", "test.crops=1", f"model.pretrained={arguments.start}"]
    check(run_command(["train", "--cfg", "motion_hard_hiera_micro", *keys]))
    trained = time.process_time()
    test = ["test", "--run", str(run), "--segments", "data.workers=0"]
    choose = ["predict", "--run", str(run), "--choose-thresholds", str(lists["val"])]
    check(run_command(choose))
    check(run_command(test))
    chosen = json.loads((run / "segments_test.json").read_text())
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    result = {
        "what": "mAP of segments in a generated video of ten minutes with 30 motions of eight "
        "classes; the demo's model, fine-tuned on other films; thresholds were chosen on a third",
        "command": " ".join(["python", *sys.argv]),
        "training": {
            "start": "motion_hard_hiera_micro of the demo",
            "films": arguments.films,
            "motions": arguments.films * TRAIN_SHOTS,
            "epochs": arguments.epochs,
            "val_top1": [row["top1"] for row in metrics if row["split"] == "val"],
        },
        "overlaps": chosen["overlaps"],
        "mAP": chosen["mAP"],
        "mean_mAP": chosen["mean_mAP"],
        "thresholds": json.loads((run / "segment_thresholds.json").read_text()),
        "classes": chosen["classes"],
        "cpu_seconds": {
            "films_and_training": round(trained - started),
            "thresholds_and_test": round(time.process_time() - trained),
        },
    }
    result["thresholds"]["chosen"].pop("list")
    print(record("segments_motion", result, arguments.out))


def check(code: int) -> None:
    """Stop if a command failed."""
    if code:
        sys.exit(code)


def make_films(folder: Path, name: str, count: int, *, shots: int, shot_seconds: int) -> Path:
    """Write films and the list of their motions; return the list."""
    videos, listing, lines = folder / name, folder / f"{name}.csv", list[str]()
    if listing.exists():
        return listing
    videos.mkdir(parents=True, exist_ok=True)
    for film in range(count):
        path = videos / f"{film}.mp4"
        made = list(make_shots(name, film, shots, shot_seconds * FPS))
        for number, shot in enumerate(made):
            start, end = (
                (number * shot_seconds * FPS + at) / FPS for at in (shot.first, shot.stop)
            )
            lines.append(f"{name}/{path.name} {shot.label} {start:.3f} {end:.3f}\n")
        write_video(path, (frame for shot in made for frame in shot.frames), fps=FPS)
    write_class_names(folder, [class_of_template(template) for template, _, _ in CLASSES])
    listing.write_text("".join(lines))
    return listing


def make_shots(name: str, film: int, count: int, length: int) -> Iterator[Shot]:
    """Yield shots of equal length, the classes in random order and equally often."""
    generator = random.Random(f"segments/{name}/{film}")
    labels = [number % len(CLASSES) for number in range(count)]
    generator.shuffle(labels)
    split = "train" if name == "train" else "validation"
    for number, label in enumerate(labels):
        _, axis, direction = CLASSES[label]
        # a number of its own for each shot: no two move alike
        place = {"train": 0, "val": 1, "test": 2}[name] * 10**6 + film * 10**3 + number
        scene = draw_scene(split, axis, place, seed=1)
        frames = generator.randint(SHORTEST, LONGEST)
        first = generator.randint(REST, length - REST - frames)
        track = sway(length, generator)
        offsets = [scene.offsets[each] for each in AXES]
        moment = ((np.arange(length) - first) / (frames - 1)).clip(0, 1) - 0.5
        track += offsets
        track[:, AXES.index(axis)] += direction * scene.extent * moment
        obj, background, _ = draw_pictures(scene, hard=True)
        pictures = list(render(obj, background, track))
        yield Shot(frames=pictures, label=label, first=first, stop=first + frames)


def sway(length: int, generator: random.Random) -> np.ndarray:
    """Return small slow oscillations along every axis, [length, 4]."""
    seconds = np.arange(length) / FPS
    waves = []
    for axis in AXES:
        period, phase = generator.uniform(2, 4), generator.uniform(0, 2 * math.pi)
        size = generator.uniform(0, SWAY[axis])
        waves.append(size * np.sin(2 * math.pi * seconds / period + phase))
    return np.stack(waves, axis=1)


if __name__ == "__main__":
    main()
