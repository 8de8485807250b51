"""Make the set of movers: videos of two to four moving objects, each with its box and its motion.

The movers are those of the motion set, each in a quarter of a frame of twice the width and height,
and no two of a video move alike, so one answer for the whole frame is right for one of them at
most. Each video is rendered twice, the second time backwards, where every mover has the mirrored
class. The annotations are in AVA's form: one key frame a video, boxes as shares of the frame.

    train.csv, val.csv                  video,second,x1,y1,x2,y2,action,person
    train_boxes.csv, val_boxes.csv      video,second,x1,y1,x2,y2,score: as a detector finds them
    action_list.pbtxt                   the label map; ids count from 1
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hiera_video.data.manifest.read import class_of_template
from hiera_video.data.prepare.motion import make_set
from hiera_video.data.prepare.motion_scenes import (
    CLASSES,
    FRAMES,
    HEIGHT,
    SAMPLES,
    WIDTH,
    Scene,
    as_frame,
    draw_background,
    draw_layer,
    draw_object,
    draw_scene,
    premultiply,
    sample_grid,
)
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.video.encode import write_video

LOOK = 1
"""Version of the pictures; raise it when they change, so that existing sets are made again."""
MOST_MOVERS = 4
FRAME_WIDTH, FRAME_HEIGHT = 2 * WIDTH, 2 * HEIGHT
FPS = 10
"""Key frames are then at tenths of a second."""
KEY_FRAMES = range(8, 16)
"""Frames around which a clip of 16 frames fits; the range is its own mirror in time."""
BOX = 0.9
"""Side of a box, as a share of the side of the object's picture, which has a margin."""
JITTER = 0.1
"""Largest shift of each edge of a detector's box, as a share of its side."""
FALSE_SIDES = (0.1, 0.25)
"""Range of the sides of a false box, as shares of the frame."""


@dataclass(frozen=True, kw_only=True)
class MoverOptions:
    """Options of the set; equal options give equal bytes."""

    seed: int
    hard: bool
    movers: int
    """Largest number of movers in a video."""
    movers_per_class: int
    """Training movers of each class, on average."""

    def videos(self, split: str) -> int:
        """Return the number of videos of a split: an even number, as each has its mirror."""
        movers = len(CLASSES) * self.movers_per_class / (1 if split == "train" else 6)
        return 2 * max(1, round(movers / (2 + self.movers)))

    def as_json(self) -> dict[str, Any]:
        return {
            "look": LOOK,
            "seed": self.seed,
            "hard": self.hard,
            "movers": self.movers,
            "movers_per_class": self.movers_per_class,
        }


@dataclass(frozen=True, kw_only=True)
class MoverVideo:
    """One video of the set."""

    id: int
    split: str
    number: int
    """Number of the scene within its split; a video and its mirror share it."""
    backwards: bool


@dataclass(frozen=True, kw_only=True)
class Mover:
    """One moving object of a video."""

    scene: Scene
    label: int
    cell: int
    """Quarter of the frame: 0 to 3, by row."""

    def track(self) -> np.ndarray:
        """Return x and y from the frame's corner, log diameter and angle of each frame."""
        _, _, direction = CLASSES[self.label]
        row, column = divmod(self.cell, 2)
        corner = ((column + 0.5) * WIDTH, (row + 0.5) * HEIGHT, 0.0, 0.0)
        return np.asarray(self.scene.track(direction) + np.array(corner))


def make_mover_set(out: Path, options: MoverOptions, workers: int) -> bool:
    """Make the set in `out`, or complete one that was interrupted, as `make_motion_set` does."""
    make = partial(make_video, options=options)
    return make_set(out, options.as_json(), list_videos(options), make, write_lists, workers)


def list_videos(options: MoverOptions) -> list[MoverVideo]:
    """Return all videos of the set, in the order of their ids."""
    videos: list[MoverVideo] = []
    for split in ("train", "validation"):
        for number in range(options.videos(split) // 2):
            for backwards in (False, True):
                one = MoverVideo(
                    id=len(videos) + 1, split=split, number=number, backwards=backwards
                )
                videos.append(one)
    return videos


def draw_movers(video: MoverVideo, options: MoverOptions) -> tuple[list[Mover], int]:
    """Return the movers of a video and the number of its key frame."""
    generator = random.Random(f"movers/{options.seed}/{video.split}/{video.number}")
    count = 2 + video.number % (options.movers - 1)
    cells = generator.sample(range(MOST_MOVERS), count)
    labels = generator.sample(range(len(CLASSES)), count)
    key = generator.choice(KEY_FRAMES)
    movers = []
    for place, (cell, label) in enumerate(zip(cells, labels)):
        number = MOST_MOVERS * video.number + place
        scene = draw_scene(video.split, CLASSES[label][1], number, options.seed)
        # neighbours in the list of classes are each other's mirror in time
        movers.append(Mover(scene=scene, label=label ^ video.backwards, cell=cell))
    return movers, FRAMES - 1 - key if video.backwards else key


def make_video(video: MoverVideo, videos: Path, *, options: MoverOptions) -> list[list[str]]:
    """Write a video unless it exists, and return the lines of its two lists."""
    movers, key = draw_movers(video, options)
    path = videos / f"{video.id}.mp4"
    if not path.exists():
        write_video(path, render_movers(video, movers, options), fps=FPS, options={"mbtree": "0"})
    boxes = [box_at(mover, key) for mover in movers]
    start = f"{video.id},{key / FPS}"
    labelled = [
        f"{start},{_edges(box)},{mover.label + 1},{person}\n"
        for person, (box, mover) in enumerate(zip(boxes, movers))
    ]
    generator = random.Random(f"movers/{options.seed}/{video.split}/{video.id}/boxes")
    found = [
        f"{start},{_edges(jitter(box, generator))},{generator.uniform(0.85, 1):.4f}\n"
        for box in boxes
    ]
    false = f"{start},{_edges(false_box(generator))},{generator.uniform(0.1, 0.6):.4f}\n"
    return [labelled, [*found, false]]


def render_movers(
    video: MoverVideo, movers: list[Mover], options: MoverOptions
) -> Iterator[np.ndarray]:
    """Render the frames of a video, uint8 [FRAME_HEIGHT, FRAME_WIDTH, 3]."""
    generator = random.Random(f"movers/{options.seed}/{video.split}/{video.number}/pictures")
    background = draw_background(video.split, generator, FRAME_WIDTH, FRAME_HEIGHT, options.hard)
    objects = [
        premultiply(draw_object(video.split, random.Random(mover.scene.seed), options.hard)[0])
        for mover in movers
    ]
    tracks = [mover.track() for mover in movers]
    y, x = sample_grid(FRAME_WIDTH, FRAME_HEIGHT)
    for time in range(FRAMES):
        frame = background.copy()
        for obj, track in zip(objects, tracks):
            part = _around(track[time])
            fine = tuple(slice(SAMPLES * each.start, SAMPLES * each.stop) for each in part)
            layer = draw_layer(obj, track[time], y[fine], x[fine])
            frame[part] = layer[..., :3] + frame[part] * (1 - layer[..., 3:])
        yield as_frame(frame)


def _around(place: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns of the frame that an object may reach at any angle."""
    x, y, log_size, _ = place.tolist()
    reach = math.exp(log_size) * math.sqrt(0.5) + 1
    rows = slice(max(int(y - reach), 0), min(math.ceil(y + reach), FRAME_HEIGHT))
    columns = slice(max(int(x - reach), 0), min(math.ceil(x + reach), FRAME_WIDTH))
    return rows, columns


def box_at(mover: Mover, frame: int) -> list[float]:
    """Return the square around a mover as shares of the frame: left, top, right, bottom."""
    x, y, log_size, _ = mover.track()[frame].tolist()
    half = BOX * math.exp(log_size) / 2
    edges = ((x - half) / FRAME_WIDTH, (y - half) / FRAME_HEIGHT,
             (x + half) / FRAME_WIDTH, (y + half) / FRAME_HEIGHT)  # fmt: skip
    return [min(max(edge, 0.0), 1.0) for edge in edges]


def jitter(box: list[float], generator: random.Random) -> list[float]:
    """Return a box with each edge shifted at random, within the frame."""
    sides = (box[2] - box[0], box[3] - box[1]) * 2
    moved = [edge + side * generator.uniform(-JITTER, JITTER) for edge, side in zip(box, sides)]
    return [min(max(edge, 0.0), 1.0) for edge in moved]


def false_box(generator: random.Random) -> list[float]:
    """Return a box anywhere in the frame."""
    width, height = generator.uniform(*FALSE_SIDES), generator.uniform(*FALSE_SIDES)
    left, top = generator.uniform(0, 1 - width), generator.uniform(0, 1 - height)
    return [left, top, left + width, top + height]


def _edges(box: list[float]) -> str:
    return ",".join(f"{edge:.3f}" for edge in box)


def write_lists(out: Path, videos: list[MoverVideo], lines: list[list[list[str]]]) -> None:
    """Write the label map, and for each split the labelled and the found boxes."""
    items = [
        f'item {{\n  name: "{class_of_template(template)}"\n  id: {index}\n}}\n'
        for index, (template, _, _) in enumerate(CLASSES, 1)
    ]
    write_atomic(out / "action_list.pbtxt", "".join(items))
    for split, name in (("train", "train"), ("validation", "val")):
        of_split = [found for video, found in zip(videos, lines) if video.split == split]
        for kind, ending in enumerate((".csv", "_boxes.csv")):
            text = "".join(line for found in of_split for line in found[kind])
            write_atomic(out / f"{name}{ending}", text)
