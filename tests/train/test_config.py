"""Learning rates that are stated for another batch size."""

from __future__ import annotations

import pytest

from hiera_video.errors import ConfigError
from hiera_video.train.config import OptimConfig


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
