"""Make the motion set: short videos of one thing that moves, labelled by how it moves, in Something-Something's format.

python datasets/motion/prepare.py --out data/motion            # digits over plain ground; about half a minute
python datasets/motion/prepare.py --out data/motion_hard --hard   # cut-outs of photographs over dimmed photographs

What a clip shows is drawn so that only its order in time tells the class: every class is filmed together with its
mirror (the same frames backwards), and at a random frame place, size and angle have one distribution in all classes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from tqdm import tqdm

from hiera_video.errors import ConfigError, HieraVideoError
from hiera_video.video.encode import write_video

LOOK = 1
"""Raise when the pictures change, so that sets made before are remade."""

WIDTH, HEIGHT, FRAMES, FPS = 48, 40, 24, 12
SAMPLES = 2  # rendered pixels per side of a video pixel, averaged
PATCH = 32  # side of an object's picture, in texels

AXES = ("x", "y", "size", "angle")
CLASSES = (  # (template, axis, direction): neighbours are each other's mirror in time; the order is the labels'
    ("Moving [something] from left to right", "x", 1),
    ("Moving [something] from right to left", "x", -1),
    ("Moving [something] down", "y", 1),
    ("Moving [something] up", "y", -1),
    ("Moving [something] towards the camera", "size", 1),
    ("Moving [something] away from the camera", "size", -1),
    ("Turning [something] clockwise", "angle", 1),
    ("Turning [something] counter-clockwise", "angle", -1),
)

CENTRE = {
    "x": (-5.0, 5.0),
    "y": (-3.0, 3.0),
    "size": (math.log(13), math.log(16)),
    "angle": (0.0, 2 * math.pi),
}
"""Where a movement's middle lies: pixels from the frame's centre, log of the diameter in pixels, radians clockwise."""
EXTENT = {
    "x": (16.0, 24.0),
    "y": (14.0, 20.0),
    "size": (math.log(2.0), math.log(2.8)),
    "angle": (1.8, 3.1),
}
"""How far it goes from the first frame to the last."""

PICTURES = {
    "train": (
        "astronaut",
        "coffee",
        "chelsea",
        "immunohistochemistry",
        "brick",
        "grass",
        "flower.jpg",
    ),
    "validation": ("rocket", "retina", "camera", "gravel", "coins", "china.jpg"),
}
"""Pictures that come inside the packages: scikit-image's by function, scikit-learn's by file. Never in both splits."""
DIGITS = {"train": range(0, 1400), "validation": range(1400, 1797)}
DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

MARKER, UNFINISHED = "prepared.json", "unfinished.json"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What two clips, a class and its mirror, have in common."""

    split: str
    axis: str
    offsets: dict[str, float]
    """Place, log size and angle in the middle of the movement."""
    extent: float
    """Of the movement along `axis`."""
    seed: str
    """What the pictures are drawn from."""

    def track(self, direction: int) -> np.ndarray:
        """[FRAMES, 4]: x, y, log diameter, angle of each frame. The mirror's is the same backwards."""
        path = np.tile([self.offsets[axis] for axis in AXES], (FRAMES, 1))
        path[:, AXES.index(self.axis)] += self.extent * (np.arange(FRAMES) / (FRAMES - 1) - 0.5)
        return path[::direction]


def draw_scene(split: str, axis: str, number: int, seed: int) -> Scene:
    """Along every axis the thing is put at a random moment of a random movement; along `axis` it then really moves."""
    name = f"motion/{seed}/{split}/{axis}/{number}"
    generator = random.Random(name)
    extents = {each: generator.uniform(*EXTENT[each]) for each in AXES}
    offsets = {each: generator.uniform(*CENTRE[each]) for each in AXES}
    for each in AXES:
        moment = generator.random() - 0.5
        if each != axis:
            offsets[each] += extents[each] * moment
    return Scene(split=split, axis=axis, offsets=offsets, extent=extents[axis], seed=name)


# -- pictures ----------------------------------------------------------------------------------------------------------


@cache
def picture(name: str) -> Any:
    """A bundled photograph as an RGB `PIL.Image`."""
    from PIL import Image
    from skimage import data
    from sklearn.datasets import load_sample_image

    pixels = load_sample_image(name) if name.endswith(".jpg") else getattr(data, name)()
    return Image.fromarray(pixels).convert("RGB")


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Handwritten digits, [1797, 8, 8] in [0, 1], and which digit each is."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images / 16, bunch.target


def cutting(
    split: str, generator: random.Random, width: int, height: int, sides: tuple[int, int]
) -> np.ndarray:
    """A random rectangle, `sides` pixels high, of a random picture, scaled to float [height, width, 3] in [0, 1]."""
    from PIL import Image

    source = picture(generator.choice(PICTURES[split]))
    box_height = min(generator.randint(*sides), source.height)
    box_width = min(box_height * width // height, source.width)
    left, top = (
        generator.randint(0, source.width - box_width),
        generator.randint(0, source.height - box_height),
    )
    box = (left, top, left + box_width, top + box_height)
    return (
        np.asarray(source.resize((width, height), Image.Resampling.BOX, box=box), np.float64) / 255
    )


def digit_object(split: str, generator: random.Random) -> tuple[np.ndarray, str]:
    """A handwritten digit filled with a bright cutting: [PATCH, PATCH, 4], colour and cover; and what to call it."""
    from PIL import Image

    images, targets = digits()
    index = generator.choice(DIGITS[split])
    strokes = Image.fromarray((images[index] * 255).astype(np.uint8)).resize(
        (PATCH - 4,) * 2, Image.Resampling.BICUBIC
    )
    cover = np.pad((np.asarray(strokes, np.float64) / 255 * 3 - 0.8).clip(0, 1), 2)
    colour = 0.55 + 0.45 * cutting(split, generator, PATCH, PATCH, (60, 200))
    return np.dstack([colour, cover]), f"a digit {DIGIT_NAMES[targets[index]]}"


def cutout_object(split: str, generator: random.Random) -> tuple[np.ndarray, str]:
    """A piece of a photograph with an irregular round outline."""
    y, x = (np.mgrid[:PATCH, :PATCH] + 0.5) / PATCH * 2 - 1
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    outline = np.full_like(radius, 0.72)
    for wave in (2, 3, 4):
        outline += generator.uniform(0.02, 0.11) * np.cos(
            wave * angle + generator.uniform(0, 2 * math.pi)
        )
    cover = ((outline - radius) * PATCH / 3).clip(0, 1)
    colour = cutting(split, generator, PATCH, PATCH, (60, 200))
    return np.dstack(
        [(colour * 0.55 / max(colour.mean(), 0.1)).clip(0, 1), cover]
    ), "a piece of a photograph"


def draw_pictures(scene: Scene, hard: bool) -> tuple[np.ndarray, np.ndarray, str]:
    """Object [PATCH, PATCH, 4], ground [HEIGHT, WIDTH, 3] and the object's name."""
    generator = random.Random(scene.seed + "/pictures")
    thing, name = (cutout_object if hard else digit_object)(scene.split, generator)
    ground = cutting(scene.split, generator, WIDTH, HEIGHT, (120, 280))
    if not hard:  # the colour of a photograph, hardly a trace of its texture
        ground = ground.mean((0, 1)) + 0.1 * (ground - ground.mean((0, 1)))
    return thing, ground * (0.4 if hard else 0.35), name


# -- rendering ---------------------------------------------------------------------------------------------------------


def render(thing: np.ndarray, ground: np.ndarray, track: np.ndarray) -> Iterator[np.ndarray]:
    """uint8 [HEIGHT, WIDTH, 3] of each row of `track`."""
    premultiplied = np.dstack([thing[..., :3] * thing[..., 3:], thing[..., 3]])
    y, x = np.mgrid[: HEIGHT * SAMPLES, : WIDTH * SAMPLES]
    y, x = (y + 0.5) / SAMPLES - HEIGHT / 2, (x + 0.5) / SAMPLES - WIDTH / 2
    for place_x, place_y, log_size, angle in track:
        texels_per_pixel = PATCH / math.exp(log_size)
        cos, sin = math.cos(angle) * texels_per_pixel, math.sin(angle) * texels_per_pixel
        right, down = x - place_x, y - place_y
        column = (
            cos * right + sin * down + PATCH / 2 - 0.5
        )  # y points down, so this turns the picture clockwise
        row = cos * down - sin * right + PATCH / 2 - 0.5
        fine = bilinear(premultiplied, row, column)
        layer = np.zeros((HEIGHT, WIDTH, 4))
        for i, j in np.ndindex(SAMPLES, SAMPLES):
            layer += fine[i::SAMPLES, j::SAMPLES] / SAMPLES**2
        frame = layer[..., :3] + ground * (1 - layer[..., 3:])
        yield (frame * 255).round().clip(0, 255).astype(np.uint8)


def bilinear(texels: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """`texels` [S, S, C] read at fractional places; zero outside."""
    result = np.zeros((*row.shape, texels.shape[-1]))
    inside = (row >= 0) & (row < PATCH - 1) & (column >= 0) & (column < PATCH - 1)
    row, column = row[inside], column[inside]
    top, left = row.astype(int), column.astype(int)
    down, right = (row - top)[:, None], (column - left)[:, None]
    upper = texels[top, left] * (1 - right) + texels[top, left + 1] * right
    lower = texels[top + 1, left] * (1 - right) + texels[top + 1, left + 1] * right
    result[inside] = upper * (1 - down) + lower * down
    return result


# -- the set -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the set is made from: equal options, equal bytes."""

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
class Clip:
    """One video of the set."""

    id: int
    split: str
    number: int
    """Which of its class's clips in the split."""
    label: int


def list_clips(options: Options) -> list[Clip]:
    clips: list[Clip] = []
    for split, count in (("train", options.clips_per_class), ("validation", options.held_out)):
        for number in range(count):
            for label in range(len(CLASSES)):
                clips.append(Clip(id=len(clips) + 1, split=split, number=number, label=label))
    return clips


def make_clip(clip: Clip, options: Options, videos: Path) -> str:
    """Write the clip's video unless it is there (a file under its name is complete); what it shows, in words."""
    _, axis, direction = CLASSES[clip.label]
    scene = draw_scene(clip.split, axis, clip.number, options.seed)
    thing, ground, name = draw_pictures(scene, options.hard)
    path = videos / f"{clip.id}.mp4"
    if not path.exists():
        # x264's macroblock tree is not reproducible on pictures this small: about one file in a hundred differs
        write_video(
            path, render(thing, ground, scene.track(direction)), fps=FPS, options={"mbtree": "0"}
        )
    return name


def write_text(path: Path, text: str) -> None:
    """All or nothing."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_annotations(out: Path, clips: list[Clip], names: list[str]) -> None:
    """Something-Something's three files, and the same as `path label` lists with the class names beside them."""
    templates = [template for template, _, _ in CLASSES]
    plain = [template.replace("[", "").replace("]", "") for template in templates]
    write_text(out / "labels.txt", "".join(f"{name}\n" for name in plain))
    write_text(
        out / "labels.json",
        json.dumps({name: str(index) for index, name in enumerate(plain)}, indent=1) + "\n",
    )
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
        write_text(out / f"{split}.json", json.dumps(entries, indent=1) + "\n")
        write_text(
            out / listing, "".join(f"videos/{clip.id}.mp4 {clip.label}\n" for clip, _ in chosen)
        )


def read_marker(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def follow(parent: int) -> None:
    """A worker's start: Ctrl-C is the parent's to answer, and a worker ends when its parent is killed.

    A pool's orphans would otherwise wait for work for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def prepare(out: Path, options: Options, workers: int) -> bool:
    """Make the set in `out`; False where it was there already. What an interrupted run left is taken over."""
    wanted = options.as_json()
    if read_marker(out / MARKER) == wanted:
        return False
    videos = out / "videos"
    ours = (out / MARKER).exists() or (out / UNFINISHED).exists()
    if out.exists() and not ours and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out}: exists and is not a motion set; name a new folder")
    videos.mkdir(parents=True, exist_ok=True)
    if (
        read_marker(out / UNFINISHED) != wanted
    ):  # other options, or an older look: nothing can be kept
        (out / UNFINISHED).unlink(missing_ok=True)
        for stale in videos.glob("*.mp4"):
            stale.unlink()
        write_text(out / UNFINISHED, json.dumps(wanted) + "\n")
    (out / MARKER).unlink(missing_ok=True)
    for litter in videos.glob(".*.partial.mp4"):
        litter.unlink()

    clips = list_clips(options)
    digits()  # slow imports happen once, here, where the workers are forked from this process
    with ProcessPoolExecutor(workers, initializer=follow, initargs=(os.getpid(),)) as pool:
        count = len(clips)
        made = pool.map(make_clip, clips, [options] * count, [videos] * count, chunksize=8)
        names = list(
            tqdm(
                made, total=count, desc="making clips", unit="clip", disable=not sys.stderr.isatty()
            )
        )
    write_annotations(out, clips, names)
    write_text(out / MARKER, json.dumps(wanted) + "\n")
    (out / UNFINISHED).unlink()
    return True


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to make the set in, e.g. data/motion"
    )
    parser.add_argument(
        "--hard", action="store_true", help="pieces of photographs over dimmed photographs"
    )
    parser.add_argument(
        "--clips-per-class",
        type=int,
        default=240,
        metavar="N",
        help="training clips of each class; a sixth is held out",
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, another set (default 0)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    given = parser.parse_args(arguments)
    for option in ("clips_per_class", "workers"):
        if getattr(given, option) < 1:
            parser.error(
                f"--{option.replace('_', '-')} {getattr(given, option)}: must be 1 or more"
            )
    options = Options(seed=given.seed, hard=given.hard, clips_per_class=given.clips_per_class)
    try:
        made = prepare(given.out, options, given.workers)
    except HieraVideoError as error:
        parser.exit(2, f"error: {error}\n")
    except ImportError as error:
        parser.exit(2, f"error: {error}; the pictures come with: pip install 'hiera-video[demo]'\n")
    except OSError as error:
        parser.exit(
            2,
            f"error: --out {given.out}: {error.strerror or error}; is the disk full, or not yours?\n",
        )
    except KeyboardInterrupt:
        parser.exit(130, "interrupted; the same command goes on from here\n")
    total = len(CLASSES) * options.clips_per_class, len(CLASSES) * options.held_out
    print(
        f"{given.out}: {'made' if made else 'there already:'} {total[0]} training and {total[1]} held-out clips"
    )
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
