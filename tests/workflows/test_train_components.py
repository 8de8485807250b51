"""Parts of a training run."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiera_video.config.load import load_config
from hiera_video.errors import CheckpointError
from hiera_video.workflows.train_components import describe_lr, require_same_step


def test_the_log_states_the_scaling() -> None:
    name, batch = "configs/motion_hiera_micro.yaml", "train.batch_size=64"
    scaled = load_config(name, [batch, "optim.lr=8e-4", "optim.lr_for_batch=256"])
    assert describe_lr(scaled) == "0.0002 (optim.lr 0.0008 × 64 / 256)"
    assert describe_lr(load_config(name, [batch, "optim.lr=8e-4"])) == "0.0008"


def test_ranks_that_find_different_checkpoints_are_an_error() -> None:
    require_same_step([4, 4], Path("run/checkpoints"))
    words = (
        r"run/checkpoints: the processes see different checkpoints \(steps \[4, 0\]\); out_dir "
        "must be on a disk"
    )
    with pytest.raises(CheckpointError, match=words):
        require_same_step([4, 0], Path("run/checkpoints"))
