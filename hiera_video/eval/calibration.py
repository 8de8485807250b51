"""Whether a confidence of 80 % means right in 80 % of the cases, and the temperature that brings it nearer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import multiclass_calibration_error

BINS = 15
LOG_TEMPERATURES = (-3.0, 3.0)
"""Search range: from 1/20 to 20."""


def calibration(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Expected calibration error (15 bins, percent) as it is and with a temperature, and the curve.

    `temperature` is fitted on all videos, for use elsewhere. `error_scaled` is honest: each half of the videos (even,
    odd places) is scaled by the temperature of the other half.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = _bins(confidence)
    curve = [
        {
            "confidence": float(confidence[place == index].mean()),
            "accuracy": float(right[place == index].mean()),
            "videos": int((place == index).sum()),
        }
        for index in range(BINS)
        if (place == index).any()
    ]
    scaled = probabilities.copy()
    halves = (slice(0, None, 2), slice(1, None, 2))
    if len(labels) > 1:
        for half, other in (halves, halves[::-1]):
            scaled[half] = scale(
                probabilities[half], fit_temperature(probabilities[other], labels[other])
            )
    return {
        "error": calibration_error(probabilities, labels),
        "temperature": fit_temperature(probabilities, labels),
        "error_scaled": calibration_error(scaled, labels),
        "curve": curve,
    }


def calibration_error(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Mean distance of confidence and accuracy over bins of confidence, weighted by their videos; percent."""
    scores, targets = torch.from_numpy(probabilities), torch.from_numpy(labels)
    return 100 * float(
        multiclass_calibration_error(scores, targets, scores.shape[1], n_bins=BINS, norm="l1")
    )


def scale(probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """The shares with their logarithms divided by `temperature`: above 1 is less sure. [N, K]."""
    logs = np.log(np.maximum(probabilities, 1e-30)) / temperature
    exponents = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def fit_temperature(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The temperature with the least negative log-likelihood of `labels`, by golden-section search (there is one
    minimum: the loss is convex in 1 / temperature)."""
    places = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        chosen = scale(probabilities, math.exp(log_temperature))[places, labels]
        return float(-np.log(np.maximum(chosen, 1e-300)).mean())

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


def _bins(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
