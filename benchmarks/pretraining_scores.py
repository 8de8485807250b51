"""Scores of several methods over folds and seeds, with paired bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Score = Callable[[np.ndarray, np.ndarray], float]
"""Labels and predictions → percent."""
DRAWS = 1000
"""Samples of a bootstrap."""


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean over classes of the F1 score, in percent."""
    scores = []
    for label in np.unique(labels):
        hits = int(((predicted == label) & (labels == label)).sum())
        total = int((predicted == label).sum() + (labels == label).sum())
        scores.append(2 * hits / total)
    return 100 * float(np.mean(scores))


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Return the share of correct predictions, in percent."""
    return 100 * float((labels == predicted).mean())


SCORES: dict[str, Score] = {"macro_f1": macro_f1, "top1": accuracy}


def summarise(
    rows: Sequence[dict[str, Any]], labels: np.ndarray, places: Sequence[str]
) -> list[dict[str, Any]]:
    """Return macro F1 and top-1 of each method, and its difference from training from scratch.

    Intervals are bootstraps over clips, of the mean over seeds; those of differences are paired.

    Args:
        rows: Finished arms: `seed`, `test` (the fold's clips), `predicted` (method → classes).
        labels: Class of each clip.
        places: Place of each clip.
    """
    answers = pool_folds(rows, len(labels))
    table = []
    for name, per_seed in answers.items():
        line: dict[str, Any] = {"method": name, "seeds": sorted(per_seed)}
        base = answers.get("scratch", {}) if name != "scratch" else {}
        for metric, score in SCORES.items():
            line[metric] = score_seeds(score, labels, per_seed)
            if common := per_seed.keys() & base.keys():
                pairs = {seed: (per_seed[seed], base[seed]) for seed in sorted(common)}
                line[metric]["minus scratch"] = score_pairs(score, labels, pairs)
        line["macro_f1 by place"] = {
            place: round(mean_score(macro_f1, labels, per_seed, np.flatnonzero(own)), 1)
            for place in sorted(set(places))
            if (own := np.array([each == place for each in places])).any()
        }
        table.append(line)
    return table


def pool_folds(rows: Sequence[dict[str, Any]], clips: int) -> dict[str, dict[int, np.ndarray]]:
    """Return the predictions of every clip, by method and seed, where all folds are there."""
    answers: dict[str, dict[int, np.ndarray]] = {}
    for row in rows:
        for name, predicted in row["predicted"].items():
            per_seed = answers.setdefault(name, {})
            per_seed.setdefault(row["seed"], np.full(clips, -1))[row["test"]] = predicted
    complete = {
        name: {seed: found for seed, found in per_seed.items() if (found >= 0).all()}
        for name, per_seed in answers.items()
    }
    return {name: per_seed for name, per_seed in complete.items() if per_seed}


def score_seeds(
    score: Score, labels: np.ndarray, per_seed: dict[int, np.ndarray]
) -> dict[str, Any]:
    """Return each seed's score, their mean and its interval."""
    seeds = [score(labels, per_seed[seed]) for seed in sorted(per_seed)]
    samples = [mean_score(score, labels, per_seed, draw) for draw in bootstrap(len(labels))]
    return _summary(seeds, samples)


def score_pairs(
    score: Score, labels: np.ndarray, pairs: dict[int, tuple[np.ndarray, np.ndarray]]
) -> dict[str, Any]:
    """Return each seed's difference of scores, their mean and its interval."""

    def gains(draw: np.ndarray | slice) -> list[float]:
        chosen = labels[draw]
        return [score(chosen, a[draw]) - score(chosen, b[draw]) for a, b in pairs.values()]

    samples = [float(np.mean(gains(draw))) for draw in bootstrap(len(labels))]
    return _summary(gains(slice(None)), samples)


def mean_score(
    score: Score, labels: np.ndarray, per_seed: dict[int, np.ndarray], clips: np.ndarray
) -> float:
    """Return the mean over seeds of a score of these clips."""
    return float(np.mean([score(labels[clips], found[clips]) for found in per_seed.values()]))


def bootstrap(clips: int) -> np.ndarray:
    """Return `DRAWS` draws of as many clips with replacement, the same for every method."""
    return np.random.default_rng(0).integers(0, clips, (DRAWS, clips))


def _summary(seeds: list[float], samples: list[float]) -> dict[str, Any]:
    return {
        "seeds": [round(value, 1) for value in seeds],
        "mean": round(float(np.mean(seeds)), 1),
        "interval": [round(float(p), 1) for p in np.percentile(samples, (2.5, 97.5))],
    }
