"""A contact sheet: rows of film strips, each with a line of text."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

HEIGHT, TEXT, MARGIN, GAP = 96, 20, 8, 2
WIDEST = 720
"""Pixels of a strip at most: wider frames are made smaller."""
FONT = "fonts/ttf/DejaVuSans.ttf"
"""Matplotlib brings it along; Pillow's own font has not even a dash."""
INK, PALE, EMPTY = (30, 30, 30), (110, 110, 110), (225, 225, 225)


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One row of a sheet."""

    title: str
    frames: NDArray[np.uint8] | None
    """[T, H, W, 3]; None where there is no picture."""
    heading: bool = False
    """Set off from the rows above, and not indented."""


def contact_sheet(strips: Sequence[Strip]) -> bytes:
    """A PNG with the strips below each other, each under its title; a grey box where there are no frames."""
    pictures = [_picture(strip) for strip in strips]
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / FONT), size=13)
    indents = [0 if strip.heading else 2 * MARGIN for strip in strips]
    widths = [
        indent + max(picture.width, round(font.getlength(strip.title)))
        for strip, picture, indent in zip(strips, pictures, indents)
    ]
    tops, bottom = list[int](), MARGIN
    for strip, picture in zip(strips, pictures):
        bottom += 2 * MARGIN if strip.heading and tops else 0
        tops.append(bottom)
        bottom += TEXT + picture.height + MARGIN
    sheet = Image.new("RGB", (max(widths, default=0) + 2 * MARGIN, bottom), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    for strip, picture, indent, top in zip(strips, pictures, indents, tops):
        draw.text(
            (MARGIN + indent, top), strip.title, fill=INK if strip.heading else PALE, font=font
        )
        sheet.paste(picture, (MARGIN + indent, top + TEXT))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()


def _picture(strip: Strip) -> Image.Image:
    if strip.frames is None:
        return Image.new("RGB", (2 * HEIGHT, HEIGHT // 2), EMPTY)
    count, height, width, _ = strip.frames.shape
    scale = min(HEIGHT / height, (WIDEST - GAP * (count - 1)) / (count * width))
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    picture = Image.new("RGB", (count * (size[0] + GAP) - GAP, size[1]), (255, 255, 255))
    for place, frame in enumerate(strip.frames):
        picture.paste(Image.fromarray(frame).resize(size, how), (place * (size[0] + GAP), 0))
    return picture
