"""Scenes of the motion set: how the object moves, its pictures, and the rendered frames.

A scene is drawn so that only the order in time reveals the class: a class and its mirror show the
same frames in opposite order, and in a random frame position, size and angle have one distribution
in all classes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

WIDTH, HEIGHT, FRAMES, FPS = 48, 40, 24, 12
SAMPLES = 2
"""Rendered pixels per side of a video pixel; they are averaged."""
PATCH = 32
"""Side of an object's picture, in texels."""

AXES = ("x", "y", "size", "angle")
CLASSES = (
    ("Moving [something] from left to right", "x", 1),
    ("Moving [something] from right to left", "x", -1),
    ("Moving [something] down", "y", 1),
    ("Moving [something] up", "y", -1),
    ("Moving [something] towards the camera", "size", 1),
    ("Moving [something] away from the camera", "size", -1),
    ("Turning [something] clockwise", "angle", 1),
    ("Turning [something] counter-clockwise", "angle", -1),
)
"""Template, axis and direction in label order; neighbours are each other's mirror in time."""

CENTRE = {
    "x": (-5.0, 5.0),
    "y": (-3.0, 3.0),
    "size": (math.log(13), math.log(16)),
    "angle": (0.0, 2 * math.pi),
}
"""Range of a movement's middle: pixels from the frame's centre, log of the diameter in pixels, and
radians clockwise."""
EXTENT = {
    "x": (16.0, 24.0),
    "y": (14.0, 20.0),
    "size": (math.log(2.0), math.log(2.8)),
    "angle": (1.8, 3.1),
}
"""Range of a movement's extent from the first frame to the last, in the same units."""

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
"""Photographs in scikit-image (by function) and scikit-learn (by file); no split shares one."""
DIGITS = {"train": range(0, 1400), "validation": range(1400, 1797)}
DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Properties that a clip shares with its mirrored clip."""

    split: str
    axis: str
    offsets: dict[str, float]
    """Position, log size and angle in the middle of the movement."""
    extent: float
    """Length of the movement along `axis`."""
    seed: str
    """Seed of the random choice of pictures."""

    def track(self, direction: int) -> np.ndarray:
        """Return x, y, log diameter and angle of each frame, [FRAMES, 4]; -1 reverses the time."""
        path = np.tile([self.offsets[axis] for axis in AXES], (FRAMES, 1))
        path[:, AXES.index(self.axis)] += self.extent * (np.arange(FRAMES) / (FRAMES - 1) - 0.5)
        return path[::direction]


def draw_scene(split: str, axis: str, number: int, seed: int) -> Scene:
    """Place the object at a random moment of a random movement along every axis.

    Along `axis` it then moves; along the others it stays.
    """
    name = f"motion/{seed}/{split}/{axis}/{number}"
    generator = random.Random(name)
    extents = {each: generator.uniform(*EXTENT[each]) for each in AXES}
    offsets = {each: generator.uniform(*CENTRE[each]) for each in AXES}
    for each in AXES:
        moment = generator.random() - 0.5
        if each != axis:
            offsets[each] += extents[each] * moment
    return Scene(split=split, axis=axis, offsets=offsets, extent=extents[axis], seed=name)


# -- pictures ----------------------------------------------------------------------------------


@cache
def load_picture(name: str) -> Any:
    """Load a photograph from the installed packages as an RGB `PIL.Image`."""
    from PIL import Image
    from skimage import data
    from sklearn.datasets import load_sample_image

    pixels = load_sample_image(name) if name.endswith(".jpg") else getattr(data, name)()
    return Image.fromarray(pixels).convert("RGB")


@cache
def load_digit_images() -> tuple[np.ndarray, np.ndarray]:
    """Load handwritten digits, [1797, 8, 8] in [0, 1], and the digit that each shows."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images / 16, bunch.target


def crop_picture(
    split: str, generator: random.Random, width: int, height: int, sides: tuple[int, int]
) -> np.ndarray:
    """Crop a random rectangle of a random picture and scale it.

    Args:
        split: Split whose pictures are used.
        generator: Source of the choice.
        width: Width of the result.
        height: Height of the result.
        sides: Range of the rectangle's height in pixels of the picture.

    Returns:
        float [height, width, 3] in [0, 1].
    """
    from PIL import Image

    source = load_picture(generator.choice(PICTURES[split]))
    box_height = min(generator.randint(*sides), source.height)
    box_width = min(box_height * width // height, source.width)
    left = generator.randint(0, source.width - box_width)
    top = generator.randint(0, source.height - box_height)
    box = (left, top, left + box_width, top + box_height)
    pixels = source.resize((width, height), Image.Resampling.BOX, box=box)
    return np.asarray(pixels, np.float64) / 255


def digit_object(split: str, generator: random.Random) -> tuple[np.ndarray, str]:
    """Draw a handwritten digit filled with a bright piece of a picture.

    Returns:
        Colour and opacity, [PATCH, PATCH, 4], and the object's name.
    """
    from PIL import Image

    images, targets = load_digit_images()
    index = generator.choice(DIGITS[split])
    digit = Image.fromarray((images[index] * 255).astype(np.uint8))
    strokes = digit.resize((PATCH - 4,) * 2, Image.Resampling.BICUBIC)
    opacity = np.pad((np.asarray(strokes, np.float64) / 255 * 3 - 0.8).clip(0, 1), 2)
    colour = 0.55 + 0.45 * crop_picture(split, generator, PATCH, PATCH, (60, 200))
    return np.dstack([colour, opacity]), f"a digit {DIGIT_NAMES[targets[index]]}"


def cutout_object(split: str, generator: random.Random) -> tuple[np.ndarray, str]:
    """Draw a piece of a photograph with an irregular round outline, as `digit_object`."""
    y, x = (np.mgrid[:PATCH, :PATCH] + 0.5) / PATCH * 2 - 1
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    outline = np.full_like(radius, 0.72)
    for wave in (2, 3, 4):
        height = generator.uniform(0.02, 0.11)
        outline += height * np.cos(wave * angle + generator.uniform(0, 2 * math.pi))
    opacity = ((outline - radius) * PATCH / 3).clip(0, 1)
    colour = crop_picture(split, generator, PATCH, PATCH, (60, 200))
    colour = (colour * 0.55 / max(colour.mean(), 0.1)).clip(0, 1)
    return np.dstack([colour, opacity]), "a piece of a photograph"


def draw_object(split: str, generator: random.Random, hard: bool) -> tuple[np.ndarray, str]:
    """Draw a piece of a photograph (`hard`) or a digit: [PATCH, PATCH, 4], and its name."""
    return (cutout_object if hard else digit_object)(split, generator)


def draw_background(
    split: str, generator: random.Random, width: int, height: int, hard: bool
) -> np.ndarray:
    """Draw a dim background, [height, width, 3]: a photograph, or its colour (not `hard`)."""
    background = crop_picture(split, generator, width, height, (120, 280))
    if not hard:  # the photograph's colour, with little of its texture
        background = background.mean((0, 1)) + 0.1 * (background - background.mean((0, 1)))
    return background * (0.4 if hard else 0.35)


def draw_pictures(scene: Scene, hard: bool) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the object [PATCH, PATCH, 4], its background [HEIGHT, WIDTH, 3] and its name."""
    generator = random.Random(scene.seed + "/pictures")
    obj, name = draw_object(scene.split, generator, hard)
    return obj, draw_background(scene.split, generator, WIDTH, HEIGHT, hard), name


# -- rendering ---------------------------------------------------------------------------------


def render(obj: np.ndarray, background: np.ndarray, track: np.ndarray) -> Iterator[np.ndarray]:
    """Render one frame, uint8 [HEIGHT, WIDTH, 3], for each row of `track`."""
    premultiplied = premultiply(obj)
    y, x = sample_grid(WIDTH, HEIGHT)
    y, x = y - HEIGHT / 2, x - WIDTH / 2
    for place in track:
        layer = draw_layer(premultiplied, place, y, x)
        yield as_frame(layer[..., :3] + background * (1 - layer[..., 3:]))


def premultiply(obj: np.ndarray) -> np.ndarray:
    """Return an object [S, S, 4] with its colours multiplied by its opacity."""
    return np.dstack([obj[..., :3] * obj[..., 3:], obj[..., 3]])


def sample_grid(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Return y and x of all samples of a frame, in pixels from its top left corner."""
    y, x = np.mgrid[: height * SAMPLES, : width * SAMPLES]
    return (y + 0.5) / SAMPLES, (x + 0.5) / SAMPLES


def draw_layer(
    premultiplied: np.ndarray, place: np.ndarray, y: np.ndarray, x: np.ndarray
) -> np.ndarray:
    """Draw an object on a transparent layer.

    Args:
        premultiplied: From `premultiply`.
        place: x, y, log diameter and angle of the object; x and y from the origin of the grid.
        y: y of each sample, [SAMPLES · H, SAMPLES · W].
        x: x of each sample.

    Returns:
        Premultiplied colour and opacity, [H, W, 4].
    """
    centre_x, centre_y, log_size, angle = place
    texels_per_pixel = PATCH / math.exp(log_size)
    cos, sin = math.cos(angle) * texels_per_pixel, math.sin(angle) * texels_per_pixel
    right, down = x - centre_x, y - centre_y
    # y points down, so this turns the picture clockwise
    column = cos * right + sin * down + PATCH / 2 - 0.5
    row = cos * down - sin * right + PATCH / 2 - 0.5
    fine = bilinear(premultiplied, row, column)
    layer = np.zeros((len(y) // SAMPLES, y.shape[1] // SAMPLES, 4))
    for i, j in np.ndindex(SAMPLES, SAMPLES):
        layer += fine[i::SAMPLES, j::SAMPLES] / SAMPLES**2
    return layer


def as_frame(colours: np.ndarray) -> np.ndarray:
    """Return colours in [0, 1] as uint8."""
    return (colours * 255).round().clip(0, 255).astype(np.uint8)


def bilinear(texels: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Sample `texels` [S, S, C] at fractional positions; 0 outside."""
    result = np.zeros((*row.shape, texels.shape[-1]))
    inside = (row >= 0) & (row < PATCH - 1) & (column >= 0) & (column < PATCH - 1)
    row, column = row[inside], column[inside]
    top, left = row.astype(int), column.astype(int)
    down, right = (row - top)[:, None], (column - left)[:, None]
    upper = texels[top, left] * (1 - right) + texels[top, left + 1] * right
    lower = texels[top + 1, left] * (1 - right) + texels[top + 1, left + 1] * right
    result[inside] = upper * (1 - down) + lower * down
    return result
