"""The `data` and `augment` sections of the configuration.

No torch, so that a wrong value is reported before torch is imported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from hiera_video.utils.checks import require
from hiera_video.video.options import Backend, FrameFolder, IndexedPyAV

MAX_REPEATS = 10_000
"""Largest number in `data.train_repeats`."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The `data` section: the videos and how they are read."""

    train: str | None = None
    """Training videos: a list file (`path label` a line), a folder (`root/class/*.mp4`, or flat),
    or an index of tar shards."""
    val: str | None = None
    """Validation videos, in the same forms; evaluated during training."""
    test: str | None = None
    """Test videos for `hiera-video test`, in the same forms; unset: `val`."""
    train_also: tuple[str, ...] = ()
    """Further lists or folders of training videos, in the same forms; classes are matched by name.
    Relative paths in them start from their own folder."""
    train_repeats: tuple[int, ...] = ()
    """How often the videos of `data.train` and of each of `data.train_also` come in an epoch.
    Unset: once each."""
    split: tuple[float, float] | None = None
    """Shares of `data.train` that are held out as validation and test where `data.val` and
    `data.test` are unset, such as [0.15, 0.15]: of each class, with the segments of one video, as
    their names say, in one part. The same videos in every run, whatever its seed."""
    background: float = 0.0
    """Background clips in an epoch, as a share of the labelled segments of `data.train`, drawn from
    what the segments leave of their videos. They have the class `background`, the last one unless
    the list names it; in a multi-label list, no label. 0: none."""
    root: str | None = None
    """Folder that relative paths in a list start from, or that holds the shards; unset: the folder
    of the list or index."""
    val_root: str | None = None
    """The same for the list `data.val`, as MMAction2's `data_root_val`; unset: `data.root`."""
    test_root: str | None = None
    """The same for the list `data.test`; unset: `data.root`."""
    separator: str | None = None
    """Separator of path and label in a list: a space, comma, `::` …; unset: detected."""
    multi_label: bool = False
    """Read every column of a list after the path as a label (`a.mp4 1 3 5`), as MMAction2 writes
    them. Unset: a line has one label, or several joined by `;`."""
    follow_links: bool = False
    """Read videos behind symbolic links that leave `root`, such as class folders on another disk.
    Unset: such links are an error."""
    decoder: Literal["pyav", "decord", "torchcodec", "frames"] = "pyav"
    """Video decoder; `frames` reads folders of pictures."""
    frame_template: str | None = None
    """File names in folders of pictures, like `img_%05d.jpg`; unset: ordered by the last number in
    the name."""
    frame_first: int | None = None
    """Number of the first picture in a folder; unset: the lowest."""
    frame_fps: float = 30.0
    """Frame rate of folders of pictures."""
    index: str | None = None
    """Packet index written by `hiera-video check-data --index`; opens long videos in a fraction of
    the time."""
    workers: int = 2
    """Loader processes; 0 loads in the main process, where a hung decoder cannot be stopped."""
    on_broken: Literal["substitute", "error"] = "substitute"
    """Unreadable videos in training: `substitute` another one (deterministic and counted) or stop
    with an `error`."""
    max_broken: float = 0.05
    """Largest share of unreadable videos in training; beyond it the run ends with exit code 3."""
    deadline_seconds: float = 60.0
    """Seconds that a worker may spend on one video before it is killed and the video skipped from
    then on (`quarantine.jsonl`). With `workers=0` the video is only named in a warning."""

    def __post_init__(self) -> None:
        require(self.workers >= 0, f"data.workers={self.workers}: must be 0 or more")
        require(
            0 <= self.background < math.inf,
            f"data.background={self.background}: must be 0 or more, and finite",
        )
        for name in ("train_also", "train_repeats"):  # YAML gives lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        lists, repeats = 1 + len(self.train_also), self.train_repeats
        require(
            not repeats
            or (len(repeats) == lists and all(1 <= each <= MAX_REPEATS for each in repeats)),
            f"data.train_repeats={list(repeats)}: must be a number from 1 to {MAX_REPEATS:,} for "
            f"data.train and for each of data.train_also, {lists} in all",
        )
        require(
            self.split is None or lists == 1,
            f"data.split={list(self.split or ())}: divides data.train alone; set "
            "data.train_also=[], or data.split=null and data.val",
        )
        if self.split is not None:
            object.__setattr__(self, "split", tuple(self.split))  # YAML gives a list
            val, test = self.split
            require(
                val >= 0 and test >= 0 and 0 < val + test < 1,
                f"data.split={list(self.split)}: must be the shares of validation and test, 0 or "
                "more, together below 1",
            )
            require(
                self.val is None or val == 0,
                f"data.split={list(self.split)}: data.val={self.val} is the validation list; "
                f"set data.val=null or data.split=[0,{test:g}]",
            )
        require(0 <= self.max_broken <= 1, f"data.max_broken={self.max_broken}: must be in [0, 1]")
        require(
            0 < self.deadline_seconds < math.inf,
            f"data.deadline_seconds={self.deadline_seconds}: must be above 0",
        )
        require(
            self.decoder == "frames" or (self.frame_template is None and self.frame_first is None),
            "data.frame_template and data.frame_first need data.decoder=frames, "
            f"not {self.decoder}; change one of them",
        )
        require(
            self.index is None or self.decoder == "pyav",
            f"data.index={self.index} needs data.decoder=pyav, not {self.decoder}; "
            "change one of them",
        )
        self.frame_folder  # noqa: B018 (its own checks)
        require(
            self.separator != "",
            "data.separator='': must not be empty; leave it unset to detect the separator",
        )

    @property
    def list_options(self) -> dict[str, Any]:
        """Arguments of `read_manifest`."""
        keys = ("root", "separator", "multi_label", "follow_links")
        frames = self.frame_folder if self.decoder == "frames" else None
        return {**{key: getattr(self, key) for key in keys}, "frames": frames}

    @property
    def frame_folder(self) -> FrameFolder:
        """Naming and frame rate of folders of pictures."""
        return FrameFolder(
            template=self.frame_template,
            first=self.frame_first,
            fps=self.frame_fps,
            follow_links=self.follow_links,
        )

    @property
    def decoding(self) -> dict[str, str | int | float | None]:
        """All keys that decide which frames a video has; stored features are matched by them."""
        keys = ("decoder", "frame_template", "frame_first", "frame_fps")
        return {f"data.{key}": getattr(self, key) for key in keys}

    @property
    def backend(self) -> Backend:
        """The decoder, as `open_video` takes it."""
        if self.index is not None:
            return IndexedPyAV(index=self.index)
        return self.frame_folder if self.decoder == "frames" else self.decoder


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """The `augment` section: augmentation of training clips.

    Applied in this order: RandAugment, colour jitter, random resized crop, flip, normalise, erase;
    then mixup or cutmix over the batch. The defaults crop, flip and normalise only; docs/recipe.md
    has the recipes' values.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    """Range of the crop's area, as a share of the frame."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of the crop's aspect ratio, width over height."""
    short_side: tuple[int, int] | None = None
    """Range of the frame's short side in pixels: the frame is resized to a random one, and a square
    of the model's size is cropped (PySlowFast's scale jitter, 256 to 320 for AVA), in place of
    `scale` and `ratio`. Unset: those."""
    box_jitter: float = 0.0
    """Largest random move of each edge of a box in training, as a share of the box's width or
    height (`train.task=detect`)."""
    flip: float = 0.5
    """Probability of a horizontal flip. Clips of classes whose names contain left or right swap
    labels or are not flipped."""
    color_jitter: float = 0.0
    """Strength x of random brightness, contrast and saturation, factors in [1 - x, 1 + x]; 0
    disables it."""
    rand_augment: float = 0.0
    """Magnitude of RandAugment, 0 to 10 (the paper: 7, jittered with std 0.5); 0 disables it."""
    rand_augment_depth: int = 2
    """Number of operations that RandAugment draws for a clip, each applied with probability 1/2: 2
    where PySlowFast fine-tunes masked models, 4 where it trains MViT from scratch."""
    erase: float = 0.0
    """Probability of erasing one box with noise, the same box in every frame."""
    device: Literal["auto", "worker", "model"] = "auto"
    """Place of crop, flip, normalise and erase: the loader's workers (`worker`), or the model's
    device, on a whole batch at once (`model`); `auto`: `model` on a GPU, `worker` on the CPU."""
    mixup: float = 0.0
    """Alpha of mixup's Beta distribution; 0 disables it."""
    cutmix: float = 0.0
    """Alpha of cutmix's Beta distribution; 0 disables it. With mixup and cutmix on, each batch uses
    one of the two with equal probability."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    """Mean that is subtracted from the RGB channels, which are in [0, 1]."""
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    """Standard deviation that the RGB channels are divided by."""

    def __post_init__(self) -> None:
        if self.short_side is not None:
            object.__setattr__(self, "short_side", tuple(self.short_side))
            shortest, longest = self.short_side
            require(
                1 <= shortest <= longest,
                f"augment.short_side={[shortest, longest]}: must be two numbers of pixels, "
                "1 <= low <= high",
            )
        jitter = self.box_jitter
        require(0 <= jitter <= 1, f"augment.box_jitter={jitter}: must be in [0, 1]")
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
        for name, limit in (("rand_augment", 10), ("color_jitter", 1)):
            value = getattr(self, name)
            require(0 <= value <= limit, f"augment.{name}={value}: must be in [0, {limit}]")
        depth = self.rand_augment_depth
        require(depth >= 1, f"augment.rand_augment_depth={depth}: must be 1 or more")
        for name in ("mixup", "cutmix"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"augment.{name}={value}: must be 0 or more, and finite")
        smoothing, std = self.label_smoothing, list(self.std)
        require(0 <= smoothing < 1, f"augment.label_smoothing={smoothing}: must be in [0, 1)")
        require(min(std) > 0, f"augment.std={std}: must be above 0")
