"""The `features` section of the configuration; imports no torch."""

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
    """The `features` section: windows, pooling and storage of extracted features."""

    input: str | None = None
    """List of videos, folder, glob (`videos/*.mp4`) or video. `input=` is short for it on the
    command line of `extract`."""
    output: str | None = None
    """Folder of the feature store. `output=` is short for it on the command line of `extract`."""
    stages: tuple[int, ...] | None = None
    """Stages of the model to take features from, counted from 1; unset: the last stage."""
    pooling: Pooling = "mean"
    """`mean` or `max` over the feature map: [C]; `temporal`: mean over space, one row per time
    step: [t, C]; `none`: the map in spatial order, [t, h, w, C]."""
    dtype: Precision = "fp32"
    """Number format of the stored features."""
    precision: Precision = "fp32"
    """Precision of the model; half precisions run under autocast."""
    compile: bool = False
    """Compile the model's blocks (`torch.compile`), which takes a minute in each process. On a GPU
    in half precision, it is faster from about 100,000 clips on. Rounding differs."""
    window: float | None = None
    """Length of the window that a feature describes, in `unit`s; unset: the span of a clip. In a
    longer window, the clip lies in the middle (`clip.sampling=dense`) or is spread over all of it
    (`segments`)."""
    stride: float | None = None
    """Distance between the starts of two windows; unset: `window`, so that they do not overlap."""
    unit: Unit = "seconds"
    """Unit of `window` and `stride`: `seconds`, or `frames` of the video itself."""
    tail: Tail = "keep"
    """Remainder after the last full window (all of a short video): `keep` it as a shorter
    window, marked as a tail, or `drop` it."""
    batch_size: int = 16
    """Clips in a batch; the last batch of a shard is padded to this size."""
    threads: int = 1
    """CPU threads of the model. Rounding depends on them; to use more cores, start more
    processes."""
    shard_clips: int = 2000
    """Approximate number of clips in a shard; the number of videos is estimated from a sample. A
    shard is held in memory until it is complete, so lower this for dense maps."""
    shard_videos: int | None = None
    """Exact number of videos in a shard; replaces `shard_clips`."""
    format: Format = "safetensors"
    """`npy` and `npz` also write one file per video beside the shards; `npz` includes the times."""
    max_broken: float = 0.05
    """Share of the videos that may be unreadable before the exit code is 3."""

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            require(
                value in choices, f"features.{name}={value!r}: choose one of {', '.join(choices)}"
            )
        if self.stages is not None:  # YAML gives lists
            stages = tuple(self.stages)
            object.__setattr__(self, "stages", stages)
            require(
                bool(stages) and min(stages) >= 1 and len(set(stages)) == len(stages),
                f"features.stages={list(stages)}: must be distinct numbers, counted from 1",
            )
        for name in ("window", "stride"):
            value = getattr(self, name)
            require(
                value is None or 0 < value < math.inf,
                f"features.{name}={value}: must be above 0 {self.unit}",
            )
            whole = value is None or self.unit == "seconds" or float(value).is_integer()
            require(
                whole, f"features.{name}={value}: must be a whole number with features.unit=frames"
            )
        for name in ("batch_size", "threads", "shard_clips", "shard_videos"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"features.{name}={value}: must be 1 or more")
        require(
            0 <= self.max_broken <= 1, f"features.max_broken={self.max_broken}: must be in [0, 1]"
        )
        require(
            self.format != "npy" or self.stages is None or len(self.stages) == 1,
            f"features.format=npy: holds one array, but features.stages={list(self.stages or ())} "
            "are several; use features.format=npz",
        )
        require(
            self.format == "safetensors" or self.dtype != "bf16",
            f"features.format={self.format}: numpy has no bf16; set features.dtype to fp16 or fp32",
        )
