"""Checks of the checks of explanations, and the documentation's table of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from explain import areas, interval, object_cells, rank_correlation

from hiera_video.data.prepare.motion_scenes import FRAMES, HEIGHT, WIDTH
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera

ROOT = Path(__file__).parents[2]


def test_the_table_of_the_documentation_has_the_results() -> None:
    results = json.loads((ROOT / "benchmarks/results/explain.json").read_text())
    rows = {}
    for line in (ROOT / "docs/explain.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[0] not in ("method", "---"):
            rows[cells[0].strip("`")] = cells[1:]
    names = {"random": "random order", "centre": "centre first"}
    for name, numbers in results["methods"].items():
        expected = [
            f"{numbers[key]:.2f}" if key in numbers else "–"
            for key in ("new weights", "deletion", "insertion")
        ]
        pointing = f"{numbers['pointing']:.0%}".replace("%", " %") if "pointing" in numbers else "–"
        found = rows[names.get(name, name)]
        assert [cell.partition(",")[0] for cell in found] == [*expected, pointing], name
        # a method that does not beat both priors is said to fail
        for place, key, sign in ((1, "deletion", -1), (2, "insertion", 1)):
            if f"{key} - random" in numbers:
                low, high = (
                    min(sign * bound for bound in numbers[f"{key} - {prior}"][1:])
                    for prior in ("random", "centre")
                )
                assert ("fails" in found[place]) == (min(low, high) <= 0), (name, key)
        assert abs(numbers.get("new weights", 0)) < results["limit"]


def test_cells_follow_the_object() -> None:
    track = np.zeros((FRAMES, 4))
    track[:, 0] = np.linspace(-15, 15, FRAMES)  # from left to right
    track[:, 1] = HEIGHT / 4  # below the middle
    cells = object_cells(track, (4 / 12, 20 / 12), (8, 2, 2))
    assert cells == [(1, 0)] * 4 + [(1, 1)] * 4
    track[:, 0] = WIDTH  # outside of the crop
    assert object_cells(track, (4 / 12, 20 / 12), (8, 2, 2)) == [(1, 1)] * 8


def test_areas_are_large_where_the_shown_units_decide() -> None:
    torch.manual_seed(0)
    model = create_model("hiera_micro_16x32", num_classes=2).eval()
    assert isinstance(model, Hiera)

    def encode(clips: torch.Tensor, keep: torch.Tensor) -> list[torch.Tensor]:
        return [keep[:, :1].float()]  # the first unit alone decides

    def head(features: torch.Tensor) -> torch.Tensor:
        return torch.cat([20 * features - 10, 10 - 20 * features], dim=1)

    model.encode, model.forward_head = encode, head  # type: ignore[assignment, method-assign]
    first, last = np.zeros((8, 2, 2)), np.zeros((8, 2, 2))
    first[0, 0, 0], last[0, 0, 0] = 1, -1
    found = areas(model, torch.zeros(3, 16, 32, 32), 0, np.stack([first, last]))
    assert found == pytest.approx(np.array([[0.0, 1.0], [1.0, 0.0]]), abs=1e-6)


def test_rank_correlation() -> None:
    one = np.arange(8.0).reshape(2, 2, 2)
    assert rank_correlation(one, one**3) == pytest.approx(1.0)
    assert rank_correlation(one, -one) == pytest.approx(-1.0)
    colours = np.stack([one, -one, one], axis=-1)
    assert rank_correlation(colours, -colours) == pytest.approx(1.0)


def test_the_interval_holds_the_mean() -> None:
    mean, low, high = interval(np.array([0.1, 0.2, 0.3, 0.4] * 8), np.mean)
    assert mean == 0.25 and 0.2 < low < 0.25 < high < 0.3
