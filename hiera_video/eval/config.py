"""The `test` section of the configuration. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from hiera_video.utils.checks import require

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class TestConfig:
    """Views of a video (`clips` × `crops`, such as 5×3 on Kinetics) and how they are computed."""

    __test__ = False  # keep pytest from collecting this class by its name

    checkpoint: str | None = None
    """Weights to test: a file, a run folder or hf-hub:owner/name. Unset: the best of `out_dir`."""
    clips: int = 5
    """Temporal clips of a video, evenly spaced; action detection takes the one around a key
    frame."""
    crops: int = 3
    """Spatial crops of a clip. 3: along the long side, with the short side scaled to the model's
    size. 1: the centre, with the short side scaled to 8/7 of it (action detection: to the model's
    size)."""
    batch_size: int = 8
    """Views in a batch; every batch has this size (the last one is padded)."""
    precision: Precision = "fp32"
    """Precision of the forward pass in `test`, `predict` and validation while training; bf16 and
    fp16 use autocast. Published numbers use fp32. The validation loss of pre-training and the
    features of probes are always computed in fp32."""
    compile: bool | None = None
    """Compile the model's blocks (`torch.compile`) for `test`, which takes a minute. Unset: on a
    GPU, in half precision, for 100,000 views or more."""
    remap_classes: bool = False
    """Map labels by class name if the manifest lists the checkpoint's classes in another order."""
    max_broken: float = 0.05
    """Fraction of the videos that may be unreadable; above it the exit code is 3."""

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
