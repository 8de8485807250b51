"""Calibration of the predicted probabilities, and the temperature that improves it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

BINS = 15
LOG_TEMPERATURES = (-3.0, 3.0)
"""Search range: temperatures from 1/20 to 20."""


def calibration(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Return the calibration error with and without temperature scaling, and the reliability curve.

    Args:
        probabilities: [N, K].
        labels: [N].

    Returns:
        - `error`: expected calibration error in percent (15 bins).
        - `temperature`: fitted on all videos, for use on other data.
        - `error_scaled`: the error with temperature scaling, cross-validated: videos at even
          positions are scaled by the temperature of those at odd positions, and vice versa.
        - `curve`: mean `confidence`, `accuracy` and number of `videos` of each non-empty bin.
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    curve = [
        {
            "confidence": float(confidence[bin_of == index].mean()),
            "accuracy": float(correct[bin_of == index].mean()),
            "videos": int((bin_of == index).sum()),
        }
        for index in range(BINS)
        if (bin_of == index).any()
    ]
    scaled = probabilities.copy()
    halves = (slice(0, None, 2), slice(1, None, 2))
    if len(labels) > 1:
        for half, other in (halves, halves[::-1]):
            temperature = fit_temperature(probabilities[other], labels[other])
            scaled[half] = scale(probabilities[half], temperature)
    return {
        "error": calibration_error(probabilities, labels),
        "temperature": fit_temperature(probabilities, labels),
        "error_scaled": calibration_error(scaled, labels),
        "curve": curve,
    }


def calibration_error(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the expected calibration error in percent.

    It is the mean distance between confidence and accuracy over bins of confidence, weighted by
    the number of videos in each.
    """
    from torchmetrics.functional.classification import multiclass_calibration_error  # 2 s

    scores, targets = torch.from_numpy(probabilities), torch.from_numpy(labels)
    return 100 * float(
        multiclass_calibration_error(scores, targets, scores.shape[1], n_bins=BINS, norm="l1")
    )


def scale(probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Divide the log-probabilities [N, K] by `temperature`; above 1 lowers the confidence."""
    logs = np.log(np.maximum(probabilities, 1e-30)) / temperature
    exponents = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def fit_temperature(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the temperature that minimises the negative log-likelihood of `labels`.

    Golden-section search finds it: the loss is convex in 1 / temperature, so it has one minimum.
    """
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        likelihood = scale(probabilities, math.exp(log_temperature))[rows, labels]
        return float(-np.log(np.maximum(likelihood, 1e-300)).mean())

    low, high = LOG_TEMPERATURES
    shrink = (math.sqrt(5) - 1) / 2
    left, right = high - shrink * (high - low), low + shrink * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > 1e-3:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - shrink * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + shrink * (high - low)
            at_right = loss(right)
    return math.exp((low + high) / 2)
