"""Brief experiments on masked pre-training keep the change that they measure."""

from __future__ import annotations

from pretraining_why import EXPERIMENTS, shorten


def test_brief_experiments() -> None:
    found = {each.name: shorten(each) for each in EXPERIMENTS}
    assert len(found) == len(EXPERIMENTS)
    first = found["first recipe: random units, 0.75"]
    assert (first.steps, first.warmup, first.repeats, first.lr) == (160, 60, 1, 1e-3)
    assert found["from scratch"].steps == 0
    assert found["warm-up 24 steps"].warmup == 12
    assert found["weight decay 0.2"].weight_decay == 0.2
    future = found["the future, variance floor 0.05"]
    assert future.steps == 160 and future.mae["variance_floor"] == 0.05
