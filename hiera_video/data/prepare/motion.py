"""Make the motion set: short videos of one moving object, labelled by how it moves."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from tqdm import tqdm

from hiera_video.data.manifest.class_names import write_class_names
from hiera_video.data.manifest.read import class_of_template
from hiera_video.data.prepare.motion_scenes import (
    CLASSES,
    FPS,
    draw_pictures,
    draw_scene,
    load_digit_images,
    render,
)
from hiera_video.errors import ConfigError
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.resumable import exclusive
from hiera_video.utils.text_files import DAMAGED_JSON
from hiera_video.video.encode import write_video

LOOK = 1
"""Version of the pictures; raise it when they change, so that existing sets are made again."""
MARKER, UNFINISHED, LOCK = "prepared.json", "unfinished.json", ".lock"

Clip = TypeVar("Clip")
Fact = TypeVar("Fact")


@dataclass(frozen=True, kw_only=True)
class MotionOptions:
    """MotionOptions of the set; equal options give equal bytes."""

    seed: int
    hard: bool
    clips_per_class: int

    @property
    def held_out(self) -> int:
        """Validation clips of each class."""
        return max(1, self.clips_per_class // 6)

    def as_json(self) -> dict[str, Any]:
        return {
            "look": LOOK,
            "seed": self.seed,
            "hard": self.hard,
            "clips_per_class": self.clips_per_class,
        }


@dataclass(frozen=True, kw_only=True)
class MotionClip:
    """One video of the set."""

    id: int
    split: str
    number: int
    """Number of the clip within its class and split."""
    label: int


def make_motion_set(out: Path, options: MotionOptions, workers: int) -> bool:
    """Make the set in `out`, or complete one that was interrupted.

    Returns:
        False if the set was there already.

    Raises:
        ConfigError: `out` has files that are not a motion set.
    """
    make = partial(make_clip, options=options)
    return make_set(out, options.as_json(), list_clips(options), make, write_annotations, workers)


def make_set(
    out: Path,
    wanted: dict[str, Any],
    clips: list[Clip],
    make: Callable[[Clip, Path], Fact],
    annotate: Callable[[Path, list[Clip], list[Fact]], None],
    workers: int,
) -> bool:
    """Make a set of clips in `out`, or complete one that was interrupted.

    Args:
        out: Folder of the set.
        wanted: Options that decide its bytes.
        clips: What to make.
        make: Called in worker processes with a clip and the folder of the videos: writes the clip
            unless it exists, and returns what its annotation needs.
        annotate: Writes the annotations into `out`, given the clips and what `make` returned.
        workers: Number of processes.

    Returns:
        False if the set was there already.

    Raises:
        ConfigError: `out` has files that are not a motion set, or another process makes it.
    """
    if read_marker(out / MARKER) == wanted:
        return False
    refuse_other_files(out)
    out.mkdir(parents=True, exist_ok=True)
    busy = f"output={out}: another command is making it; wait for its end or choose another folder"
    with exclusive(out / LOCK, busy):
        if read_marker(out / MARKER) == wanted:  # made meanwhile
            return False
        _make_set(out, wanted, clips, make, annotate, workers)
    return True


def _make_set(
    out: Path,
    wanted: dict[str, Any],
    clips: list[Clip],
    make: Callable[[Clip, Path], Fact],
    annotate: Callable[[Path, list[Clip], list[Fact]], None],
    workers: int,
) -> None:
    videos = claim_folder(out, wanted)
    load_digit_images()  # slow imports happen once, before the workers are forked
    count = len(clips)
    with ProcessPoolExecutor(workers, initializer=init_worker, initargs=(os.getpid(),)) as pool:
        made = pool.map(make, clips, [videos] * count, chunksize=8)
        hidden = not sys.stderr.isatty()
        facts = list(tqdm(made, total=count, desc="making clips", unit="clip", disable=hidden))
    annotate(out, clips, facts)
    write_atomic(out / MARKER, json.dumps(wanted) + "\n")
    (out / UNFINISHED).unlink()


def refuse_other_files(out: Path) -> None:
    """Raise `ConfigError` if `out` exists and is not the folder of a set."""
    ours = (out / MARKER).exists() or (out / UNFINISHED).exists()
    if not out.exists() or ours:
        return
    if not out.is_dir() or any(path.name != LOCK for path in out.iterdir()):
        raise ConfigError(f"output={out}: exists and is not a motion set; choose a new folder")


def claim_folder(out: Path, wanted: dict[str, Any]) -> Path:
    """Mark `out` as unfinished, remove what other options left, and return the folder of videos."""
    videos = out / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    if read_marker(out / UNFINISHED) != wanted:  # other options, or an older look
        (out / UNFINISHED).unlink(missing_ok=True)
        for stale in videos.glob("*.mp4"):
            stale.unlink()
        write_atomic(out / UNFINISHED, json.dumps(wanted) + "\n")
    (out / MARKER).unlink(missing_ok=True)
    for unfinished in videos.glob(".*.partial.mp4"):
        unfinished.unlink()
    return videos


def list_clips(options: MotionOptions) -> list[MotionClip]:
    """Return all clips of the set, in the order of their ids."""
    clips: list[MotionClip] = []
    for split, count in (("train", options.clips_per_class), ("validation", options.held_out)):
        for number in range(count):
            for label in range(len(CLASSES)):
                clips.append(MotionClip(id=len(clips) + 1, split=split, number=number, label=label))
    return clips


def make_clip(clip: MotionClip, videos: Path, *, options: MotionOptions) -> str:
    """Write the clip's video unless it exists, and return the object's name."""
    _, axis, direction = CLASSES[clip.label]
    scene = draw_scene(clip.split, axis, clip.number, options.seed)
    obj, background, name = draw_pictures(scene, options.hard)
    path = videos / f"{clip.id}.mp4"
    if not path.exists():
        frames = render(obj, background, scene.track(direction))
        # x264's macroblock tree is not reproducible for pictures this small: about one file in a
        # hundred differs
        write_video(path, frames, fps=FPS, options={"mbtree": "0"})
    return name


def write_annotations(out: Path, clips: list[MotionClip], names: list[str]) -> None:
    """Write Something-Something's three files, and `path label` lists with their class names."""
    templates = [template for template, _, _ in CLASSES]
    classes = list(map(class_of_template, templates))
    write_class_names(out, classes)
    index_of = {name: str(index) for index, name in enumerate(classes)}
    write_atomic(out / "labels.json", json.dumps(index_of, indent=1) + "\n")
    for split, listing in (("train", "train.csv"), ("validation", "val.csv")):
        chosen = [(clip, name) for clip, name in zip(clips, names) if clip.split == split]
        entries = [
            {
                "id": str(clip.id),
                "label": templates[clip.label].replace("[something]", name).lower(),
                "template": templates[clip.label],
                "placeholders": [name],
            }
            for clip, name in chosen
        ]
        write_atomic(out / f"{split}.json", json.dumps(entries, indent=1) + "\n")
        lines = [f"videos/{clip.id}.mp4 {clip.label}\n" for clip, _ in chosen]
        write_atomic(out / listing, "".join(lines))


def read_marker(path: Path) -> Any:
    """Return the options in a marker file, or None if there is no readable one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except DAMAGED_JSON:
        return None


def init_worker(parent: int) -> None:
    """Ignore Ctrl-C, which the parent handles, and exit when the parent is gone.

    A pool's orphans would otherwise wait for work for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    Thread(target=watch, daemon=True).start()
