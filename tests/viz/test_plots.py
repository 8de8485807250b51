"""Plots are pictures, and importing them leaves matplotlib's state alone."""

from __future__ import annotations

import importlib
import io
import warnings

import matplotlib
import numpy as np
import pytest
from PIL import Image

from hiera_video.viz import plots


def test_importing_the_plots_does_not_change_the_backend() -> None:
    before = matplotlib.get_backend()
    matplotlib.use("svg")
    try:
        importlib.reload(plots)
        assert matplotlib.get_backend() == "svg"
        loss = plots.loss_curve([{"split": "train", "step": 0, "loss": 1.0}])
        assert loss.startswith(b"\x89PNG")
    finally:
        matplotlib.use(before)


def test_plots_are_not_blank() -> None:
    rows = [{"step": step, "split": "train", "loss": 2.0 - step} for step in range(3)]
    rows.append({"step": 2, "split": "val", "top1": 50.0})
    views = [{"clips": 1, "crops": 1, "top1": 40.0}, {"clips": 1, "crops": 3, "top1": 50.0}]
    for png in (
        plots.loss_curve(rows),
        plots.score_curve(rows, "top1"),
        plots.confusion_matrix(np.array([[3, 0], [1, 2]]), ["to the right", "to the left"]),
        plots.accuracy_by_views(views, "top1"),
        plots.learning_rate_curve([0.0, 0.5, 1.0], [0.0, 1e-3, 0.0]),
        plots.calibration_curve([{"confidence": 0.9, "accuracy": 0.7, "videos": 10}]),
    ):
        assert np.asarray(Image.open(io.BytesIO(png))).std() > 0


@pytest.mark.parametrize("name", ["$a_$b", r"$\frac{1$", "a\nb", "\x1b[31m", "\udce9"])
def test_names_of_classes_are_drawn_as_they_are(name: str) -> None:
    """I 4.10: mathtext and bytes that are not UTF-8 ended a finished test without a report."""
    assert plots.confusion_matrix(np.eye(2, dtype=int), [name, "b"]).startswith(b"\x89PNG")


def test_names_that_the_font_lacks_are_drawn_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curves = {"走る": [(0, 1.0), (1, 2.0)]}
        assert plots.compare_curves(curves, "loss").startswith(b"\x89PNG")
        assert plots.confusion_matrix(np.eye(2, dtype=int), ["跳ぶ", "b"]).startswith(b"\x89PNG")
