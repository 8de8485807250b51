"""Boxes with captions, drawn on frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hiera_video.utils.text_files import escape_names, printable
from hiera_video.viz.sheet import FONT

MIN_SIDE = 480
"""Smaller frames are enlarged until their short side has this many pixels, to read captions."""
LINES_PER_SIDE = 32
"""Lines of captions that fit into the short side of a frame by default."""
Colour = tuple[int, int, int]
GREEN, RED, BLUE, GREY = (79, 157, 105), (200, 87, 78), (59, 111, 196), (120, 126, 136)
PALETTE: tuple[Colour, ...] = (
    *(BLUE, (217, 130, 43), GREEN, RED),
    *((139, 92, 180), (20, 150, 160), (190, 150, 20), (210, 90, 150)),
)
"""Colours of classes; later classes start again."""


@dataclass(frozen=True, kw_only=True)
class DrawnBox:
    """A box to draw."""

    edges: tuple[float, float, float, float]
    """Left, top, right and bottom as shares of the frame."""
    captions: tuple[str, ...]
    """Lines of text above the box, or below it where there is no room above."""
    colour: Colour


def drawing_size(height: int, width: int) -> tuple[int, int]:
    """Return the height and width, both even, at which boxes are drawn on a frame.

    >>> drawing_size(80, 96), drawing_size(1080, 1920), drawing_size(721, 1281)
    ((480, 576), (1080, 1920), (720, 1280))
    """
    factor = max(-(-MIN_SIDE // min(height, width)), 1)
    return factor * height // 2 * 2, factor * width // 2 * 2


def draw_boxes(
    frame: NDArray[np.uint8], boxes: Sequence[DrawnBox], *, lines: int = LINES_PER_SIDE
) -> NDArray[np.uint8]:
    """Return a frame with boxes, at the size that `drawing_size` returns.

    Args:
        frame: uint8 [H, W, 3].
        boxes: Later ones are drawn over earlier ones.
        lines: Lines of captions that fit into the short side; fewer are larger.
    """
    height, width = drawing_size(*frame.shape[:2])
    picture = Image.fromarray(frame)
    if height >= 2 * frame.shape[0]:  # enlarged: pixels stay visible
        picture = picture.resize((width, height), Image.Resampling.NEAREST)
    else:  # the last row or column of an odd side is left out
        picture = picture.crop((0, 0, width, height))
    draw = ImageDraw.Draw(picture)
    text_height = min(width, height) // lines
    font = _font(text_height * 4 // 5)
    thickness = max(text_height // 6, 2)
    for box in boxes:
        left, top, right, bottom = np.array(box.edges) * (width, height, width, height)
        corners = (left, top, max(right, left), max(bottom, top))
        draw.rectangle(corners, outline=box.colour, width=thickness)
        texts = [_shorten(printable(escape_names(text)), width, font) for text in box.captions]
        above = top - text_height * len(texts)
        start = above if above >= 0 else min(bottom, height - text_height * len(texts))
        for number, line in enumerate(texts):
            length = font.getlength(line)
            x = max(min(left, width - length - 4), 0)
            y = start + number * text_height
            draw.rectangle((x, y, x + length + 3, y + text_height - 1), fill=box.colour)
            draw.text((x + 2, y + text_height / 2), line, (255, 255, 255), font, anchor="lm")
    return np.asarray(picture)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / FONT), size=size)


def _shorten(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """Return the text, or as much of its start as fits into the width with "…" behind it."""
    if font.getlength(text) <= width - 4:
        return text
    count = len(text)
    while count and font.getlength(text[:count] + "…") > width - 4:
        count -= 1
    return text[:count] + "…"
