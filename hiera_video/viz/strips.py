"""Film strips: a few frames of a clip side by side."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def film_strip(frames: NDArray[np.uint8], *, height: int = 96) -> bytes:
    """PNG of `frames` [T, H, W, 3] side by side with a thin gap, scaled to `height` pixels."""
    gap = np.full((frames.shape[1], max(frames.shape[2] // 24, 1), 3), 255, np.uint8)
    parts = [part for frame in frames for part in (frame, gap)][:-1]
    strip = Image.fromarray(np.concatenate(parts, axis=1))
    width = round(strip.width * height / strip.height)
    # enlarged pixels stay pixels; photographs are reduced smoothly
    kind = Image.Resampling.NEAREST if height > strip.height else Image.Resampling.LANCZOS
    buffer = io.BytesIO()
    strip.resize((width, height), kind).save(buffer, format="PNG")
    return buffer.getvalue()
