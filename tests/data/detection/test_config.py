"""Keys of action detection, and settings that do not go with it."""

from __future__ import annotations

import pytest

from hiera_video.config.load import load_config
from hiera_video.errors import ConfigError

DETECT = ["train.task=detect", "augment.flip=0"]


def test_defaults() -> None:
    config = load_config("motion_hiera_micro", DETECT)
    detect = config.detect
    assert (detect.boxes, detect.train_boxes, detect.excluded) == (None, None, None)
    assert (detect.start_seconds, detect.min_score) == (0.0, 0.8)
    assert (config.augment.short_side, config.augment.box_jitter) == (None, 0.0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("detect.min_score=1.5", "detect.min_score=1.5: must be in [0, 1]"),
        ("detect.start_seconds=.nan", "detect.start_seconds=nan: must be a number"),
        ("augment.box_jitter=2", "augment.box_jitter=2.0: must be in [0, 1]"),
        (
            "augment.short_side=[40,36]",
            "augment.short_side=[40, 36]: must be two numbers of pixels, 1 <= low <= high",
        ),
        (
            "augment.short_side=[24,36]",
            "augment.short_side=[24, 36]: must be at least 32, the side of the model's clips",
        ),
        (
            "augment.rand_augment=7",
            "augment.rand_augment=7.0: does not go with train.task=detect, where pixels and "
            "labels must stay with their boxes; set it to 0",
        ),
        (
            "model.name=ladder_f_micro_16x32",
            "model.name=ladder_f_micro_16x32: train.task=detect needs a Hiera; name one, such as "
            "hiera_base_16x224",
        ),
        (
            "model.name=vit_micro_16x32",
            "model.name=vit_micro_16x32: train.task=detect needs a Hiera; name one, such as",
        ),
        ("augment.mixup=0.8", "augment.mixup=0.8: does not go with train.task=detect, where"),
        ("augment.cutmix=1", "augment.cutmix=1.0: does not go with train.task=detect, where"),
        ("augment.label_smoothing=0.1", "augment.label_smoothing=0.1: does not go with train"),
        (
            "clip.sampling=segments",
            "clip.sampling=segments: train.task=detect takes the frames around a key frame; set "
            "clip.sampling=dense",
        ),
        (
            "train.balanced_sampling=true",
            "train.balanced_sampling=true: does not go with train.task=detect, where a key frame "
            "has boxes of several classes; use train.weighted_loss",
        ),
    ],
)
def test_messages(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config("motion_hiera_micro", [*DETECT, override])
    assert message in str(error.value)


def test_keys_of_boxes_need_the_task() -> None:
    with pytest.raises(
        ConfigError,
        match=r"section detect: needs train.task=detect, not classify; set it, or remove the keys",
    ):
        load_config("motion_hiera_micro", ["detect.boxes=boxes.csv"])


def test_jitter_needs_boxes() -> None:
    with pytest.raises(
        ConfigError,
        match=r"augment.box_jitter=0.1: needs train.task=detect, not classify; set it to 0",
    ):
        load_config("motion_hiera_micro", ["augment.box_jitter=0.1"])
