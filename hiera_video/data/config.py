"""The `data` and `augment` sections of the configuration. No torch, so that a wrong value is told at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hiera_video.utils.checks import require
from hiera_video.video.options import Backend, FrameFolder, IndexedPyAV


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the videos are and how they are read."""

    train: str | None = None
    """Manifest file (`path label` a line), folder (`root/class/*.mp4`, or flat), or index of tar shards, to train on."""
    val: str | None = None
    """The same, for validation while training."""
    test: str | None = None
    """The same, for `test_net.py`; `val` where unset."""
    root: str | None = None
    """Folder that relative paths in manifests start from, or shards lie in; the manifest's own folder where unset."""
    separator: str | None = None
    """What separates path and label: a space, comma, `::` …; sniffed where unset."""
    decoder: Literal["pyav", "decord", "torchcodec", "frames"] = "pyav"
    """What reads the videos; `frames`: folders of pictures."""
    frame_template: str | None = None
    """Names of the pictures in such a folder, like `img_%05d.jpg`; unset: found by their numbers."""
    frame_first: int | None = None
    """Number of the first picture; unset: the lowest."""
    frame_fps: float = 30.0
    """Pictures a second that were taken."""
    index: str | None = None
    """Index of packets that `tools/check_data.py --index` has written: long videos open in a fraction of the time."""
    workers: int = 2
    """Loader processes; 0 loads in the main process, where a decoder that hangs cannot be ended."""
    on_broken: Literal["substitute", "error"] = "substitute"
    """A video that cannot be read in training: take another one in its place (deterministic, counted), or stop."""
    max_broken: float = 0.05
    """Share of the videos seen that may be broken before training ends with exit code 3."""
    deadline_seconds: float = 60.0
    """A worker busy with one video for longer is killed, and the video passed over from then on (`quarantine.jsonl`).
    With `workers=0` there is none to kill: the video is named in a warning."""

    def __post_init__(self) -> None:
        require(self.workers >= 0, f"data.workers={self.workers}: must be 0 or more")
        require(0 <= self.max_broken <= 1, f"data.max_broken={self.max_broken}: must be in [0, 1]")
        require(
            0 < self.deadline_seconds < math.inf,
            f"data.deadline_seconds={self.deadline_seconds}: must be above 0",
        )
        require(
            self.decoder == "frames" or (self.frame_template is None and self.frame_first is None),
            f"data.frame_template and data.frame_first go with data.decoder=frames, not {self.decoder}; change one of them",
        )
        require(
            self.index is None or self.decoder == "pyav",
            f"data.index={self.index} goes with data.decoder=pyav, not {self.decoder}; change one of them",
        )
        self.frame_folder  # noqa: B018 (its own checks)
        require(
            self.separator != "",
            "data.separator='': must not be empty; leave it unset to have it sniffed",
        )

    @property
    def frame_folder(self) -> FrameFolder:
        """How folders of pictures are read."""
        return FrameFolder(template=self.frame_template, first=self.frame_first, fps=self.frame_fps)

    @property
    def decoding(self) -> dict[str, str | int | float | None]:
        """All that decides which frames a video has, by the key that sets it; what is kept on disk is known by it."""
        keys = ("decoder", "frame_template", "frame_first", "frame_fps")
        return {f"data.{key}": getattr(self, key) for key in keys}

    @property
    def backend(self) -> Backend:
        """What `open_video` takes."""
        if self.index is not None:
            return IndexedPyAV(index=self.index)
        return self.frame_folder if self.decoder == "frames" else self.decoder


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What training does to a clip, in this order: RandAugment, colour jitter, random resized crop, flip, normalise, erase;
    then mixup or cutmix over the batch. Defaults: crop, flip and normalise alone (the recipes' values: docs/recipe.md)."""

    scale: tuple[float, float] = (0.08, 1.0)
    """Range of the crop's area, as a share of the frame."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of the crop's aspect ratio, width over height."""
    flip: float = 0.5
    """Probability of a horizontal flip. Classes whose names tell left from right swap labels or are not flipped."""
    color_jitter: float = 0.0
    """Strength of random brightness, contrast and saturation, factors in [1 - x, 1 + x]; 0 switches it off."""
    rand_augment: float = 0.0
    """Magnitude of RandAugment on its scale of 10 (the paper: 7, jittered with std 0.5); 0 switches it off."""
    erase: float = 0.0
    """Probability of erasing one box, the same in every frame, with noise."""
    device: Literal["worker", "model"] = "worker"
    """Where crop, flip, normalise and erase run: in the loader's workers, or on the model's device for a batch at once."""
    mixup: float = 0.0
    """Alpha of mixup's Beta distribution; 0 switches it off."""
    cutmix: float = 0.0
    """Alpha of cutmix's Beta distribution; 0 switches it off. With both on, each batch draws one of the two, half and half."""
    label_smoothing: float = 0.0
    """Mass of the target that is spread over all classes."""
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    """Mean of the RGB channels in [0, 1], subtracted."""
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    """Standard deviation of the RGB channels, divided by."""

    def __post_init__(self) -> None:
        for name in ("scale", "ratio", "mean", "std"):
            values = tuple(getattr(self, name))  # YAML gives lists
            object.__setattr__(self, name, values)
            require(
                all(map(math.isfinite, values)),
                f"augment.{name}={list(values)}: must be finite numbers",
            )
        low, high = self.scale
        require(
            0 < low <= high <= 1,
            f"augment.scale={list(self.scale)}: must be two shares, 0 < low <= high <= 1",
        )
        low, high = self.ratio
        require(
            0 < low <= high,
            f"augment.ratio={list(self.ratio)}: must be two ratios, 0 < low <= high",
        )
        for name in ("flip", "erase"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"augment.{name}={value}: is a probability, must be in [0, 1]")
        require(
            0 <= self.rand_augment <= 10,
            f"augment.rand_augment={self.rand_augment}: must be in [0, 10]",
        )
        require(
            0 <= self.color_jitter <= 1,
            f"augment.color_jitter={self.color_jitter}: must be in [0, 1]",
        )
        for name in ("mixup", "cutmix"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"augment.{name}={value}: must be 0 or more, and finite")
        require(
            0 <= self.label_smoothing < 1,
            f"augment.label_smoothing={self.label_smoothing}: must be in [0, 1)",
        )
        require(
            all(value > 0 for value in self.std), f"augment.std={list(self.std)}: must be above 0"
        )
