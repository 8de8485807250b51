"""Test videos of the data benchmarks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

FRAMES, FPS, VIDEOS = 300, 30, 4


def scene(width: int, height: int, seed: int) -> Iterator[np.ndarray]:
    """Yield a panned texture with a moving square and grain, so that B-frames have work to do."""
    noise = np.random.default_rng(seed)
    coarse = noise.integers(0, 256, (height // 8 + 48, width // 8 + 48, 3)).astype(np.float32)
    texture = coarse.repeat(8, axis=0).repeat(8, axis=1)
    for _ in range(3):
        texture = (texture + np.roll(texture, 3, axis=0) + np.roll(texture, 3, axis=1)) / 3
    for number in range(FRAMES):
        top, left = int(100 + 80 * np.sin(number / 40)), int(100 + 80 * np.cos(number / 55))
        picture = texture[top : top + height, left : left + width].copy()
        x = number * 2 % (width - 60)
        picture[60:120, x : x + 60] = 255 - picture[60:120, x : x + 60]
        yield (picture + noise.normal(0, 4, picture.shape)).clip(0, 255).astype(np.uint8)
