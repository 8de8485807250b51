"""Parts of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hiera_video.config.load import load_config
from hiera_video.data.manifest.record import Manifest
from hiera_video.errors import CheckpointError
from hiera_video.train.config import OptimConfig, TrainConfig
from hiera_video.workflows.train_components import (
    describe,
    describe_lr,
    recipe_warnings,
    require_same_step,
    should_compile,
)


def test_the_log_states_the_scaling() -> None:
    name, batch = "configs/motion_hiera_micro.yaml", "train.batch_size=64"
    scaled = load_config(name, [batch, "optim.lr=8e-4", "optim.lr_for_batch=256"])
    assert describe_lr(scaled) == "0.0002 (optim.lr 0.0008 × 64 / 256)"
    assert describe_lr(load_config(name, [batch, "optim.lr=8e-4"])) == "0.0008"


@pytest.mark.parametrize(
    ("num_classes", "names"), [(3, ["up", "down", "round"]), (2, None), (4, None)]
)
def test_names_are_stored_if_they_are_those_of_the_models_classes(
    seven_videos: Manifest, num_classes: int, names: list[str] | None
) -> None:
    """A task of one's own has classes of its own."""
    config = load_config("configs/motion_hiera_micro.yaml")
    meta = describe(config, seven_videos, None, num_classes)
    assert meta["class_names"] == names and meta["model"]["num_classes"] == num_classes
    assert describe(config, seven_videos, None, None)["class_names"] == ["up", "down", "round"]


def test_ranks_that_find_different_checkpoints_are_an_error() -> None:
    require_same_step([4, 4], Path("run/checkpoints"))
    words = (
        r"run/checkpoints: the processes see different checkpoints \(steps \[4, 0\]\); out_dir "
        "must be on a disk"
    )
    with pytest.raises(CheckpointError, match=words):
        require_same_step([4, 0], Path("run/checkpoints"))


@pytest.mark.parametrize(
    ("train", "optim", "expected"),
    [
        ({"batch_size": 8}, {}, ["4 of 12 videos are left over in each epoch"]),
        ({"batch_size": 4}, {"warmup_epochs": 9.9}, []),
        (
            {"batch_size": 4},
            {"warmup_epochs": 10},
            ["optim.warmup_epochs=10: is all of train.epochs=10, so the learning rate only rises"],
        ),
        (
            {"batch_size": 4, "ema": 0.9999},
            {},
            [
                "train.ema=0.9999: after the run's 30 steps, 100% of the average are still the "
                "weights of the first step; lower it to 0.86 or less, or unset it"
            ],
        ),
        ({"batch_size": 4, "ema": 0.9}, {}, []),
        ({"batch_size": 64}, {}, []),
    ],
)
def test_settings_that_waste_videos_or_epochs_are_warned_of(
    train: dict[str, Any], optim: dict[str, Any], expected: list[str]
) -> None:
    """Issue I, 3.4."""
    found = recipe_warnings(TrainConfig(epochs=10, **train), OptimConfig(**optim), 12)
    assert len(found) == len(expected)
    assert all(words in message for words, message in zip(expected, found))


@pytest.mark.parametrize(
    ("train", "device", "steps", "expected"),
    [
        ({}, "cuda", 1000, True),
        ({}, "cuda", 999, False),
        ({}, "cpu", 1000, False),
        ({"deterministic": True}, "cuda", 1000, False),
        ({"compile": False}, "cuda", 1000, False),
        ({"compile": True, "deterministic": True}, "cpu", 1, True),
    ],
)
def test_long_runs_on_a_gpu_are_compiled(
    train: dict[str, Any], device: str, steps: int, expected: bool
) -> None:
    assert should_compile(TrainConfig(**train), torch.device(device), steps=steps) is expected
