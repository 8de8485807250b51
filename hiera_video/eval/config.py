"""The `test` section of the configuration: the views of a video and how they are computed. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from hiera_video.utils.checks import require

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class TestConfig:
    """`clips` × `crops` views a video, as in "5×3" for Kinetics."""

    __test__ = False  # the name is the section's; pytest need not collect it

    checkpoint: str | None = None
    """What is tested: a file, a run folder or hf-hub:owner/name; unset: the best checkpoint of `out_dir`."""
    clips: int = 5
    """Temporal clips a video, evenly spaced."""
    crops: int = 3
    """Spatial crops a clip: 3 along the long side at short side = size; 1 in the centre at short side = 8/7 size."""
    batch_size: int = 8
    """Views that the model sees at once; every batch has this size (the last one is padded)."""
    precision: Precision = "fp32"
    """How the model computes in a test, in `predict` and in validation while training; half precisions are autocast.
    Published numbers are fp32's; the held-out loss of pre-training and the features of probes are fp32 always."""
    remap_classes: bool = False
    """A manifest whose class names stand in another order than the checkpoint's: map its labels by name."""
    max_broken: float = 0.05
    """Share of the videos that may be unreadable before the exit code says so (3)."""

    def __post_init__(self) -> None:
        for name in ("clips", "crops", "batch_size"):
            value = getattr(self, name)
            require(value >= 1, f"test.{name}={value}: must be 1 or more")
        choices = get_args(Precision)
        require(
            self.precision in choices,
            f"test.precision={self.precision!r}: choose one of {', '.join(choices)}",
        )
        require(0 <= self.max_broken <= 1, f"test.max_broken={self.max_broken}: must be in [0, 1]")
