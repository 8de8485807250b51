"""Learning rates that are stated for another batch size."""

from __future__ import annotations

import pytest

from hiera_video.config.load import load_config
from hiera_video.errors import ConfigError
from hiera_video.train.config import OptimConfig
from hiera_video.workflows.train_components import describe_lr


def test_learning_rates_scale_with_the_batch_and_other_settings_stay() -> None:
    stated = OptimConfig(lr=1e-3, warmup_lr=1e-6, min_lr=1e-5, lr_for_batch=256)
    used = stated.for_batch(1024)
    assert (used.lr, used.warmup_lr, used.min_lr) == (4e-3, 4e-6, 4e-5)
    assert used.weight_decay == stated.weight_decay
    assert used.for_batch(1024) is used  # scaled once
    plain = OptimConfig(lr=1e-3)
    assert plain.for_batch(1024) is plain


@pytest.mark.parametrize("batch", [0, -256])
def test_a_batch_size_below_one_is_an_error(batch: int) -> None:
    with pytest.raises(
        ConfigError,
        match=f"optim.lr_for_batch={batch}: must be 1 or more, or null to use the rates",
    ):
        OptimConfig(lr_for_batch=batch)


def test_the_log_states_the_scaling() -> None:
    name, batch = "configs/motion_hiera_micro.yaml", "train.batch_size=64"
    scaled = load_config(name, [batch, "optim.lr=8e-4", "optim.lr_for_batch=256"])
    assert describe_lr(scaled) == "0.0002 (optim.lr 0.0008 × 64 / 256)"
    assert describe_lr(load_config(name, [batch, "optim.lr=8e-4"])) == "0.0008"
