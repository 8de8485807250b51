"""The `features` section of the configuration. No torch, so that a wrong value is told at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from hiera_video.utils.checks import require

Pooling = Literal["mean", "max", "temporal", "none"]
Unit = Literal["seconds", "frames"]
Precision = Literal["fp32", "bf16", "fp16"]
Tail = Literal["keep", "drop"]
Format = Literal["safetensors", "npy", "npz"]

CHOICES = {
    "pooling": get_args(Pooling),
    "dtype": get_args(Precision),
    "precision": get_args(Precision),
    "unit": get_args(Unit),
    "tail": get_args(Tail),
    "format": get_args(Format),
}


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """What is extracted of which stretches of each video, and how it is stored."""

    input: str | None = None
    """A list of videos, a folder, a glob (`videos/*.mp4`) or one video. On the command line `input=` is enough."""
    output: str | None = None
    """Folder of the shards. On the command line `output=` is enough."""
    stages: tuple[int, ...] | None = None
    """Stages of the model whose maps are taken, counted from 1; unset: the last."""
    pooling: Pooling = "mean"
    """`mean` or `max` over the map: [C]; `temporal`: mean over space, one row a time step: [t, C]; `none`: the map
    in spatial order, [t, h, w, C]."""
    dtype: Precision = "fp32"
    """How features are stored."""
    precision: Precision = "fp32"
    """How the model computes; half precisions are autocast."""
    window: float | None = None
    """Length of the stretch that a feature is of, in `unit`s; unset: what the clip spans. In a longer one the clip lies in
    the middle (`clip.sampling=dense`) or is spread over all of it (`segments`)."""
    stride: float | None = None
    """From one stretch's start to the next; unset: `window`, side by side."""
    unit: Unit = "seconds"
    """What `window` and `stride` count; `frames`: the video's own."""
    tail: Tail = "keep"
    """What is left after the last whole stretch (of a short video: all of it): a shorter one, marked, or nothing."""
    batch_size: int = 16
    """Clips that the model sees at once; the last batch of a shard is padded to it."""
    threads: int = 1
    """CPU threads of the model. Rounding depends on them; to use more cores, start more processes."""
    shard_clips: int = 2000
    """Clips of a shard, about: a sample of the videos tells how many videos that is. A shard is held in memory until it is
    whole: lower this for dense maps."""
    shard_videos: int | None = None
    """Videos of a shard, exactly, instead."""
    format: Format = "safetensors"
    """`npy` and `npz` write a file a video beside the shards; `npz` holds the times too."""
    max_broken: float = 0.05
    """Share of the videos that may be broken before the exit code is 3."""

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            require(
                value in choices, f"features.{name}={value!r}: choose one of {', '.join(choices)}"
            )
        if self.stages is not None:  # YAML gives lists
            object.__setattr__(self, "stages", tuple(self.stages))
            wrong = (
                not self.stages or min(self.stages) < 1 or len(set(self.stages)) < len(self.stages)
            )
            require(
                not wrong,
                f"features.stages={list(self.stages)}: stages are counted from 1, each once",
            )
        for name in ("window", "stride"):
            value = getattr(self, name)
            require(
                value is None or 0 < value < math.inf,
                f"features.{name}={value}: must be above 0 {self.unit}",
            )
            whole = value is None or self.unit == "seconds" or float(value).is_integer()
            require(whole, f"features.{name}={value}: features.unit=frames counts whole frames")
        for name in ("batch_size", "threads", "shard_clips", "shard_videos"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"features.{name}={value}: must be 1 or more")
        require(
            0 <= self.max_broken <= 1, f"features.max_broken={self.max_broken}: must be in [0, 1]"
        )
        require(
            self.format != "npy" or self.stages is None or len(self.stages) == 1,
            f"features.format=npy: holds one array, features.stages={list(self.stages or ())} are several; take npz",
        )
        require(
            self.format == "safetensors" or self.dtype != "bf16",
            f"features.format={self.format}: numpy has no bf16; set features.dtype to fp16 or fp32",
        )
