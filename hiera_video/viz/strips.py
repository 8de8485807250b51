"""Film strips: a few frames of a clip side by side."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def film_strip(frames: NDArray[np.uint8], *, height: int = 96) -> bytes:
    """`frames` [T, H, W, 3] side by side with a thin gap, scaled to `height` pixels. Enlarged pixels stay pixels, in a
    PNG; photographs are reduced smoothly, in a JPEG of a tenth of the size."""
    gap = np.full((frames.shape[1], max(frames.shape[2] // 24, 1), 3), 255, np.uint8)
    parts = [part for frame in frames for part in (frame, gap)][:-1]
    strip = Image.fromarray(np.concatenate(parts, axis=1))
    width = max(round(strip.width * height / strip.height), 1)
    buffer = io.BytesIO()
    if height > strip.height:
        strip.resize((width, height), Image.Resampling.NEAREST).save(buffer, format="PNG")
    else:
        strip.resize((width, height), Image.Resampling.LANCZOS).save(
            buffer, format="JPEG", quality=85
        )
    return buffer.getvalue()
