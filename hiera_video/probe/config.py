"""The `probe` section of the configuration: what is tried on frozen features. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hiera_video.utils.checks import require

Kind = Literal["knn", "linear", "attentive"]
KINDS: tuple[Kind, ...] = ("knn", "linear", "attentive")


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Probes, and the settings that each of them chooses from by cross-validation on the training videos alone."""

    kinds: tuple[Kind, ...] = KINDS
    """`knn`: votes of the nearest training videos; `linear`: a linear layer on the mean token; `attentive`: one learned
    query that attends to all tokens of the last map, and a linear layer."""
    clips: int = 2
    """Temporal clips a video, in training and in the test."""
    crops: int = 1
    """Spatial crops a clip."""
    folds: int = 3
    """Parts of the training videos; each setting is tried on each of them after training on the others."""
    neighbours: tuple[int, ...] = (5, 10, 20, 50)
    """`knn`: how many vote."""
    temperatures: tuple[float, ...] = (0.03, 0.07, 0.2)
    """`knn`: a vote weighs exp(cosine similarity / temperature)."""
    lrs: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)
    """`linear` and `attentive`: peak learning rates of AdamW, which decay by a cosine."""
    weight_decays: tuple[float, ...] = (0.0, 0.1)
    """`linear` and `attentive`."""
    epochs: int = 30
    """Passes over the features."""
    batch_size: int = 256
    """Views a step."""
    max_gigabytes: float = 16.0
    """Memory that the features may take; tokens of every view are many."""

    def __post_init__(self) -> None:
        for name in (
            "kinds",
            "neighbours",
            "temperatures",
            "lrs",
            "weight_decays",
        ):  # YAML gives lists
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)
            require(len(values) > 0, f"probe.{name}=[]: name at least one")
            require(len(set(values)) == len(values), f"probe.{name}={list(values)}: name each once")
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        require(
            not unknown,
            f"probe.kinds={list(self.kinds)}: unknown {unknown}; choose from {', '.join(KINDS)}",
        )
        for name in ("clips", "crops", "epochs", "batch_size"):
            require(
                getattr(self, name) >= 1, f"probe.{name}={getattr(self, name)}: must be 1 or more"
            )
        require(self.folds >= 2, f"probe.folds={self.folds}: must be 2 or more")
        require(
            all(k >= 1 for k in self.neighbours),
            f"probe.neighbours={list(self.neighbours)}: must be 1 or more",
        )
        for name in ("temperatures", "lrs"):
            values = getattr(self, name)
            require(
                all(0 < value < math.inf for value in values),
                f"probe.{name}={list(values)}: must be above 0",
            )
        require(
            all(0 <= value < math.inf for value in self.weight_decays),
            f"probe.weight_decays={list(self.weight_decays)}: must be 0 or more",
        )
        require(
            self.max_gigabytes > 0, f"probe.max_gigabytes={self.max_gigabytes}: must be above 0"
        )
