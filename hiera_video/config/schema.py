"""The complete configuration, composed of the dataclasses of the libraries."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hiera_video.data.config import AugmentConfig, DataConfig
from hiera_video.data.detection.config import DetectConfig
from hiera_video.data.sampling import ClipConfig, check_num_clips
from hiera_video.eval.config import TestConfig
from hiera_video.features.config import FeaturesConfig
from hiera_video.models.layout import HieraConfig
from hiera_video.models.registry import MaeConfig, ModelConfig, config_for, is_mae
from hiera_video.probe.config import ProbeConfig
from hiera_video.train.config import OptimConfig, TrainConfig, count_frozen_blocks
from hiera_video.utils.checks import require

LIMITS = {
    "model.num_classes": 1_000_000,
    "train.batch_size": 1 << 20,
    "test.batch_size": 1 << 20,
    "test.clips": 10_000,
    "test.crops": 1_000,
    "data.workers": 4_096,
    "data.background": 1_000,
    "optim.lora_rank": 1_024,
}
"""Values beyond which a key is a slip: the memory for it does not exist."""
MAX_CLIP_PIXELS = 1 << 28


@dataclass(frozen=True, kw_only=True)
class Config:
    """Configuration of one experiment.

    A `Config` that exists is valid: each section checks its own values, this class those that
    involve several sections.
    """

    model: ModelConfig
    """Model, its input size and initial weights."""
    mae: MaeConfig = field(default_factory=MaeConfig)
    """Masked pre-training, for `mae_…` models."""
    data: DataConfig = field(default_factory=DataConfig)
    """Videos and how they are read."""
    clip: ClipConfig = field(default_factory=ClipConfig)
    """Frames of a clip."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation of training clips."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer and learning rate."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Length of training, batch size, checkpoints, validation."""
    test: TestConfig = field(default_factory=TestConfig)
    """Views and evaluation."""
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    """Feature extraction."""
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    """Probes on frozen features, for `train.task=probe`."""
    detect: DetectConfig = field(default_factory=DetectConfig)
    """Boxes and classes of action detection, for `train.task=detect`."""
    out_dir: str = "runs/default"
    """Folder of the run: checkpoints, metrics, results, report."""
    seed: int = 0
    """Seed from which all random numbers of the run are derived."""

    def __post_init__(self) -> None:
        model, train, size = self.model.name, self.train, self.input_size
        require(
            len(size) == 3,
            f"model.name={model}: is an image model; choose a video model such as "
            "hiera_base_16x224",
        )
        require(
            size[0] == self.clip.num_frames,
            f"model.input_size={list(size)} has {size[0]} frames, "
            f"clip.num_frames={self.clip.num_frames}: must be equal; set clip.num_frames={size[0]} "
            f"or model.input_size=[{self.clip.num_frames},{size[1]},{size[2]}]",
        )
        require(
            math.prod(size) <= MAX_CLIP_PIXELS,
            f"model.input_size={list(size)}: has more than {MAX_CLIP_PIXELS:,} pixels a clip; "
            "lower it",
        )
        for key, limit in LIMITS.items():
            section, _, name = key.partition(".")
            value = getattr(getattr(self, section), name)
            require(value is None or value <= limit, f"{key}={value}: must be at most {limit:,}")
        require(
            size[1] == size[2],
            f"model.input_size={list(size)}: clips are cropped to squares; make both sides equal",
        )
        tasks = ("pretrain",) if is_mae(model) else ("classify", "probe", "detect")
        require(
            train.task in tasks,
            f"model.name={model} goes with train.task={' or '.join(tasks)}, not {train.task}; "
            "change one of them",
        )
        depth = config_for(model).depth
        require(
            count_frozen_blocks(train.freeze) <= depth,
            f"train.freeze={list(train.freeze)}: {model} has {depth} blocks",
        )
        rank = self.optim.lora_rank
        require(
            rank is None or (train.task != "pretrain" and train.parallel == "ddp"),
            f"optim.lora_rank={rank}: needs train.parallel=ddp and a classifier (now "
            f"{train.parallel}, {model}); set optim.lora_rank=null or change them",
        )
        if train.task == "classify":
            check_num_clips(self.clip, self.test.clips)
        elif train.task == "probe":
            check_num_clips(self.clip, self.probe.clips, "probe.clips")
        self._check_boxes()
        require(
            self.optim.warmup_epochs <= train.epochs,
            f"optim.warmup_epochs={self.optim.warmup_epochs} is longer than "
            f"train.epochs={train.epochs}; lower it",
        )

    def _check_boxes(self) -> None:
        """Check the settings that suit action detection only, or do not suit it."""
        augment, size = self.augment, self.input_size[1]
        short_side = augment.short_side
        require(
            short_side is None or short_side[0] >= size,
            f"augment.short_side={list(short_side or ())}: must be at least {size}, the side of "
            "the model's clips",
        )
        if self.train.task != "detect":
            require(
                augment.box_jitter == 0,
                f"augment.box_jitter={augment.box_jitter}: needs train.task=detect, not "
                f"{self.train.task}; set it to 0",
            )
            require(
                self.detect == DetectConfig(),
                f"section detect: needs train.task=detect, not {self.train.task}; set it, or "
                "remove the keys",
            )
            return
        require(
            type(config_for(self.model.name)) is HieraConfig,
            f"model.name={self.model.name}: train.task=detect needs a Hiera; name one, such as "
            "hiera_base_16x224",
        )
        for name in ("rand_augment", "mixup", "cutmix", "label_smoothing"):
            value = getattr(augment, name)
            require(
                value == 0,
                f"augment.{name}={value}: does not go with train.task=detect, where pixels and "
                "labels must stay with their boxes; set it to 0",
            )
        require(
            self.clip.sampling == "dense",
            f"clip.sampling={self.clip.sampling}: train.task=detect takes the frames around a key "
            "frame; set clip.sampling=dense",
        )
        require(
            not self.train.balanced_sampling,
            "train.balanced_sampling=true: does not go with train.task=detect, where a key frame "
            "has boxes of several classes; use train.weighted_loss",
        )

    @property
    def input_size(self) -> tuple[int, ...]:
        """Input size of the model: frames, height and width (image models: height and width)."""
        return config_for(self.model.name, input_size=self.model.input_size).input_size
