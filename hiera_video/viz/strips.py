"""Film strips: frames of a clip side by side."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def film_strip(frames: NDArray[np.uint8], *, height: int = 96) -> bytes:
    """Return frames side by side, with a thin white gap, as an encoded picture.

    Args:
        frames: uint8 [T, H, W, 3].
        height: Height of the picture in pixels.

    Returns:
        A PNG if the frames are enlarged, which keeps their pixels visible; otherwise a JPEG, which
        takes a tenth of the size.
    """
    gap = np.full((frames.shape[1], max(frames.shape[2] // 24, 1), 3), 255, np.uint8)
    parts = [part for frame in frames for part in (frame, gap)][:-1]
    strip = Image.fromarray(np.concatenate(parts, axis=1))
    size = max(round(strip.width * height / strip.height), 1), height
    buffer = io.BytesIO()
    if height > strip.height:
        strip.resize(size, Image.Resampling.NEAREST).save(buffer, format="PNG")
    else:
        strip.resize(size, Image.Resampling.LANCZOS).save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()


def shrink(frame: NDArray[np.uint8], *, height: int) -> NDArray[np.uint8]:
    """Return a frame, uint8 [H, W, 3], reduced to a height; a lower one is returned as it is."""
    if frame.shape[0] <= height:
        return frame
    size = max(round(frame.shape[1] * height / frame.shape[0]), 1), height
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))
