"""Pictures show what they were given, at the size they promise."""

from __future__ import annotations

import importlib
import io

import matplotlib
import numpy as np
import torch
from PIL import Image

from hiera_video.viz import plots
from hiera_video.viz.plots import (
    accuracy_by_views,
    calibration_curve,
    confusion_matrix,
    loss_curve,
    score_curve,
)
from hiera_video.viz.reconstructions import reconstruction_sheet
from hiera_video.viz.strips import film_strip


def opened(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_importing_the_plots_leaves_matplotlib_as_it_is() -> None:
    before = matplotlib.get_backend()
    matplotlib.use("svg")
    try:
        importlib.reload(plots)
        assert matplotlib.get_backend() == "svg"
        assert loss_curve([{"split": "train", "step": 0, "loss": 1.0}]).startswith(b"\x89PNG")
    finally:
        matplotlib.use(before)


def test_a_film_strip_keeps_order_and_pixels() -> None:
    frames = np.stack([np.full((48, 48, 3), value, np.uint8) for value in (0, 100, 200)])
    strip = opened(film_strip(frames, height=96))
    assert strip.shape[0] == 96 and strip.shape[1] == ((3 * 48 + 2 * 2) * 2)
    assert [int(strip[50, x, 0]) for x in (40, 140, 240)] == [0, 100, 200]


def test_reconstructions_stand_under_their_originals_in_true_colours() -> None:
    mean, std = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)
    kinds = [torch.full((2, 3, 4, 32, 32), (value - 0.45) / 0.225) for value in (0.2, 0.4, 0.6)]
    sheet = opened(reconstruction_sheet((kinds[0], kinds[1], kinds[2]), mean=mean, std=std))
    pitch = 3 * 32 + 4
    assert sheet.shape == (2 * 3 * pitch + 12, 4 * pitch, 3)
    found = [int(sheet[10 + row * pitch, 10, 0]) for row in range(3)]
    assert found == [51, 102, 153]


def test_photographs_become_small_jpegs() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (3, 240, 320, 3), dtype=np.uint8)
    found = film_strip(frames, height=96)
    assert found.startswith(b"\xff\xd8") and opened(found).shape[:2] == (
        96,
        round((3 * 320 + 2 * 13) * 96 / 240),
    )


def test_plots_are_pictures() -> None:
    rows = [{"step": step, "split": "train", "loss": 2.0 - step} for step in range(3)]
    rows.append({"step": 2, "split": "val", "top1": 50.0})
    assert opened(loss_curve(rows)).std() > 0 and opened(score_curve(rows, "top1")).std() > 0
    counts = np.array([[3, 0], [1, 2]])
    assert opened(confusion_matrix(counts, ["to the right", "to the left"])).std() > 0
    views = [{"clips": 1, "crops": 1, "top1": 40.0}, {"clips": 1, "crops": 3, "top1": 50.0}]
    assert opened(accuracy_by_views(views, "top1")).std() > 0
    assert opened(calibration_curve([{"confidence": 0.9, "accuracy": 0.7, "videos": 10}])).std() > 0
