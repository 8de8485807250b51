"""Several renderings of a clip, such as its frames and a map over them: as a PNG, GIF or frames."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiera_video.viz.sheet import Strip, contact_sheet, draw_sheet

STRIP_FRAMES, MOVING_HEIGHT = 8, 192


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """One rendering of a clip."""

    caption: str
    frames: NDArray[np.uint8]
    """uint8 [T, H, W, 3]."""


@dataclass(frozen=True, kw_only=True)
class ClipFilm:
    """A clip and its renderings, all with the same number of frames."""

    title: str
    renderings: tuple[Rendering, ...]
    fps: float
    """Frames per second at which the clip moves."""


def film_sheet(films: Sequence[ClipFilm]) -> bytes:
    """Return a PNG with at most 8 frames of each rendering, the renderings below each other."""
    strips = []
    for film in films:
        for index, rendering in enumerate(film.renderings):
            last = len(rendering.frames) - 1
            chosen = np.unique(np.linspace(0, last, STRIP_FRAMES).round().astype(int))
            title = rendering.caption if index else f"{film.title}  {rendering.caption}"
            strips.append(Strip(title=title, frames=rendering.frames[chosen], heading=not index))
    return contact_sheet(strips)


def film_frames(films: Sequence[ClipFilm]) -> list[NDArray[np.uint8]]:
    """Return a moving picture, with the renderings of a clip side by side and the clips below.

    A clip of fewer frames than the longest stops at its last.

    Returns:
        One uint8 [H, W, 3] for each frame, of even height and width.
    """
    length = max(len(rendering.frames) for film in films for rendering in film.renderings)
    pictures = []
    for time in range(length):
        strips = []
        for film in films:
            captions = " | ".join(rendering.caption for rendering in film.renderings)
            now = [
                rendering.frames[min(time, len(rendering.frames) - 1)]
                for rendering in film.renderings
            ]
            strips.append(
                Strip(title=f"{film.title}  {captions}", frames=np.stack(now), heading=True)
            )
        picture = np.asarray(draw_sheet(strips, height=MOVING_HEIGHT))
        height, width = picture.shape[:2]
        margins = ((0, height % 2), (0, width % 2), (0, 0))
        pictures.append(np.pad(picture, margins, constant_values=255))
    return pictures


def encode_gif(frames: Sequence[NDArray[np.uint8]], fps: float) -> bytes:
    """Return frames, uint8 [H, W, 3], as an endless GIF with one palette of 256 colours for all."""
    pictures = [Image.fromarray(frame) for frame in frames]
    # a palette for each frame would make still places flicker
    few = np.concatenate(frames[:: max(len(frames) // STRIP_FRAMES, 1)])
    palette = Image.fromarray(few).quantize(256, dither=Image.Dither.NONE)
    first, *others = [
        picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures
    ]
    buffer = io.BytesIO()
    duration = max(round(1000 / fps), 20)  # viewers slow shorter ones down
    first.save(buffer, format="GIF", save_all=True, append_images=others, duration=duration, loop=0)
    return buffer.getvalue()
