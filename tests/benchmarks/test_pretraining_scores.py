"""Scores of the measurement on real clips, with values worked out by hand."""

from __future__ import annotations

import numpy as np
from pretraining_scores import accuracy, macro_f1, pool_folds, summarise

LABELS = np.array([0, 0, 0, 1])


def test_macro_f1() -> None:
    # class 0: 2 hits of 3 answers and 3 labels; class 1: 1 hit of 1 answer and 1 label
    assert macro_f1(LABELS, np.array([0, 0, 2, 1])) == 100 * (4 / 5 + 2 / 2) / 2
    assert macro_f1(LABELS, np.array([0, 0, 0, 0])) == 100 * (6 / 7 + 0) / 2
    assert accuracy(LABELS, np.array([0, 0, 2, 1])) == 75


def test_folds_are_pooled_and_incomplete_seeds_left_out() -> None:
    rows = [
        {"seed": 0, "test": [0, 2], "predicted": {"scratch": [0, 1]}},
        {"seed": 0, "test": [1, 3], "predicted": {"scratch": [0, 1]}},
        {"seed": 1, "test": [1, 3], "predicted": {"scratch": [0, 1]}},
    ]
    pooled = pool_folds(rows, 4)
    assert {name: sorted(seeds) for name, seeds in pooled.items()} == {"scratch": [0]}
    assert pooled["scratch"][0].tolist() == [0, 0, 1, 1]
    assert pool_folds(rows[:1], 4) == {}


def test_differences_are_paired_by_seed() -> None:
    rows = [
        {"seed": seed, "test": [0, 1, 2, 3], "predicted": {name: predicted}}
        for name, per_seed in {
            "scratch": [[0, 0, 1, 0], [0, 0, 0, 0]],
            "future": [[0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 1]],
        }.items()
        for seed, predicted in enumerate(per_seed)
    ]
    scratch, future = summarise(rows, LABELS, ["gate", "gate", "bridge", "bridge"])
    assert scratch["top1"]["seeds"] == [50, 75] and scratch["top1"]["mean"] == 62.5
    assert "minus scratch" not in scratch["top1"]
    assert future["seeds"] == [0, 1, 2]
    gain = future["top1"]["minus scratch"]
    assert gain["seeds"] == [25, 25] and gain["mean"] == 25
    # the gain is that of the last clip alone: between none and three quarters of a draw
    assert gain["interval"] == [0, 75]
    assert future["macro_f1 by place"] == {"bridge": 77.8, "gate": 100}
