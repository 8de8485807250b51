"""The `probe` section of the configuration; imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hiera_video.utils.checks import require

Kind = Literal["knn", "linear", "attentive"]
KINDS: tuple[Kind, ...] = ("knn", "linear", "attentive")


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """The `probe` section: probes on frozen features, and the settings each of them tries.

    Settings are chosen by cross-validation on the training videos alone.
    """

    kinds: tuple[Kind, ...] = KINDS
    """Probes to train. `knn`: vote of the nearest training videos; `linear`: linear layer on the
    mean token; `attentive`: one learned query that attends to all tokens of the last feature map,
    and a linear layer."""
    clips: int = 2
    """Temporal clips per video, in training and in the test."""
    crops: int = 1
    """Spatial crops per clip."""
    folds: int = 3
    """Folds of the cross-validation."""
    neighbours: tuple[int, ...] = (5, 10, 20, 50)
    """`knn`: numbers of neighbours to try."""
    temperatures: tuple[float, ...] = (0.03, 0.07, 0.2)
    """`knn`: temperatures to try; a vote weighs exp(cosine similarity / temperature)."""
    lrs: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)
    """`linear` and `attentive`: peak learning rates to try, with AdamW and cosine decay."""
    weight_decays: tuple[float, ...] = (0.0, 0.1)
    """`linear` and `attentive`: weight decays to try."""
    epochs: int = 30
    """Epochs over the features."""
    batch_size: int = 256
    """Views in a batch."""
    max_gigabytes: float = 16.0
    """Most memory that the features may take; `attentive` keeps all tokens of every view."""

    def __post_init__(self) -> None:
        for name in ("kinds", "neighbours", "temperatures", "lrs", "weight_decays"):
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)  # YAML gives lists
            require(len(values) > 0, f"probe.{name}=[]: must have at least one value")
            require(
                len(set(values)) == len(values), f"probe.{name}={list(values)}: values must differ"
            )
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        require(
            not unknown,
            f"probe.kinds={list(self.kinds)}: unknown {unknown}; choose from {', '.join(KINDS)}",
        )
        for name in ("clips", "crops", "epochs", "batch_size"):
            value = getattr(self, name)
            require(value >= 1, f"probe.{name}={value}: must be 1 or more")
        require(self.folds >= 2, f"probe.folds={self.folds}: must be 2 or more")
        require(
            all(count >= 1 for count in self.neighbours),
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
