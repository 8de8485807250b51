"""Contact sheets: film strips below each other, each with a title."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hiera_video.utils.text_files import escape_names, printable

HEIGHT, TEXT, MARGIN, GAP = 96, 20, 8, 2
MAX_WIDTH = 720
"""Width of a strip in pixels; wider ones are scaled down."""
FONT = "fonts/ttf/DejaVuSans.ttf"
"""Shipped with matplotlib; Pillow's own font lacks even a dash."""
BLACK, GREY, PLACEHOLDER = (30, 30, 30), (110, 110, 110), (225, 225, 225)


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One row of a sheet."""

    title: str
    frames: NDArray[np.uint8] | None
    """uint8 [T, H, W, 3]; None draws a grey box."""
    heading: bool = False
    """Start a group: a darker title, and space above."""


def contact_sheet(strips: Sequence[Strip]) -> bytes:
    """Return a PNG with the strips below each other, each under its title."""
    buffer = io.BytesIO()
    draw_sheet(strips).save(buffer, format="PNG")
    return buffer.getvalue()


def draw_sheet(strips: Sequence[Strip], *, height: int = HEIGHT) -> Image.Image:
    """Draw the strips below each other, each under its title, its frames `height` pixels high."""
    pictures = [_picture(strip, height) for strip in strips]
    titles = [printable(escape_names(strip.title)) for strip in strips]
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / FONT), size=13)
    widths = [
        max(picture.width, round(font.getlength(title))) for title, picture in zip(titles, pictures)
    ]
    tops, bottom = list[int](), MARGIN
    for strip, picture in zip(strips, pictures):
        bottom += 2 * MARGIN if strip.heading and tops else 0
        tops.append(bottom)
        bottom += TEXT + picture.height + MARGIN
    sheet = Image.new("RGB", (max(widths, default=0) + 2 * MARGIN, bottom), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    for strip, title, picture, top in zip(strips, titles, pictures, tops):
        draw.text((MARGIN, top), title, fill=BLACK if strip.heading else GREY, font=font)
        sheet.paste(picture, (MARGIN, top + TEXT))
    return sheet


def _picture(strip: Strip, tallest: int) -> Image.Image:
    if strip.frames is None:
        return Image.new("RGB", (2 * tallest, tallest // 2), PLACEHOLDER)
    count, height, width, _ = strip.frames.shape
    scale = min(tallest / height, (MAX_WIDTH - GAP * (count - 1)) / (count * width))
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    resampling = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    picture = Image.new("RGB", (count * (size[0] + GAP) - GAP, size[1]), (255, 255, 255))
    for index, frame in enumerate(strip.frames):
        resized = Image.fromarray(frame).resize(size, resampling)
        picture.paste(resized, (index * (size[0] + GAP), 0))
    return picture
