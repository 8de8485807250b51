"""Film strips and reconstruction sheets show the right pixels at the right place."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from hiera_video.viz.reconstructions import reconstruction_sheet
from hiera_video.viz.strips import film_strip


def decoded(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))


def test_enlarged_strips_keep_order_and_pixels() -> None:
    frames = np.stack([np.full((48, 48, 3), value, np.uint8) for value in (0, 100, 200)])
    strip = decoded(film_strip(frames, height=96))
    assert strip.shape[:2] == (96, (3 * 48 + 2 * 2) * 2)
    assert strip[50, [40, 140, 240], 0].tolist() == [0, 100, 200]


def test_reduced_strips_are_jpegs() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (3, 240, 320, 3), dtype=np.uint8)
    strip = film_strip(frames, height=96)
    assert strip.startswith(b"\xff\xd8")
    assert decoded(strip).shape[:2] == (96, round((3 * 320 + 2 * 13) * 96 / 240))


def test_reconstructions_are_below_their_originals_in_true_colours() -> None:
    mean, std = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)
    kinds = [torch.full((2, 3, 4, 32, 32), (value - 0.45) / 0.225) for value in (0.2, 0.4, 0.6)]
    sheet = decoded(reconstruction_sheet((kinds[0], kinds[1], kinds[2]), mean=mean, std=std))
    pitch = 3 * 32 + 4
    assert sheet.shape == (2 * 3 * pitch + 12, 4 * pitch, 3)
    assert sheet[[10, 10 + pitch, 10 + 2 * pitch], 10, 0].tolist() == [51, 102, 153]
