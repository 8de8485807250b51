"""The whole configuration: each section is the dataclass of the package that owns it."""

from __future__ import annotations

from dataclasses import dataclass, field

from hiera_video.data.config import AugmentConfig, DataConfig
from hiera_video.data.sampling import ClipConfig, check_num_clips
from hiera_video.eval.config import TestConfig
from hiera_video.features.config import FeaturesConfig
from hiera_video.models.registry import MaeConfig, ModelConfig, config_for, is_mae
from hiera_video.probe.config import ProbeConfig
from hiera_video.train.config import OptimConfig, TrainConfig
from hiera_video.utils.checks import require


@dataclass(frozen=True, kw_only=True)
class Config:
    """One experiment. A `Config` that exists is valid: each section checks itself, this class checks what they share."""

    model: ModelConfig
    """Which network."""
    mae: MaeConfig = field(default_factory=MaeConfig)
    """Masked pre-training; used with `mae_…` models."""
    data: DataConfig = field(default_factory=DataConfig)
    """Where the videos are."""
    clip: ClipConfig = field(default_factory=ClipConfig)
    """Which frames make a clip."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """What training does to a clip."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer and learning rate."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How long, how much at once."""
    test: TestConfig = field(default_factory=TestConfig)
    """The views of a test."""
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    """What is extracted of videos, and how it is stored."""
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    """What is tried on frozen features (`train.task=probe`)."""
    out_dir: str = "runs/default"
    """Folder of the run: checkpoints, metrics, results, report."""
    seed: int = 0
    """Every random number of the run follows from this one."""

    def __post_init__(self) -> None:
        size = self.input_size
        if len(size) == 2:
            reject_image_model(self.model.name)
        require(
            size[0] == self.clip.num_frames,
            f"model.input_size={list(size)} has {size[0]} frames, clip.num_frames={self.clip.num_frames}: "
            f"must be equal; set clip.num_frames={size[0]}",
        )
        require(
            size[1] == size[2],
            f"model.input_size={list(size)}: clips are cropped to squares; make both sides equal",
        )
        wanted = ("pretrain",) if is_mae(self.model.name) else ("classify", "probe")
        require(
            self.train.task in wanted,
            f"model.name={self.model.name} goes with train.task={' or '.join(wanted)}, not {self.train.task}; change one "
            "of them",
        )
        if self.train.task == "classify":
            check_num_clips(self.clip, self.test.clips)
        elif self.train.task == "probe":
            check_num_clips(self.clip, self.probe.clips, "probe.clips")
        require(
            self.optim.warmup_epochs <= self.train.epochs,
            f"optim.warmup_epochs={self.optim.warmup_epochs} is longer than train.epochs={self.train.epochs}; lower it",
        )

    @property
    def input_size(self) -> tuple[int, ...]:
        """Frames, height and width that the model sees."""
        return config_for(self.model.name, input_size=self.model.input_size).input_size


def reject_image_model(name: str) -> None:
    """An image model cannot be trained on clips."""
    require(
        False,
        f"model.name={name}: is an image model; choose a video model such as hiera_base_16x224",
    )
