"""The forward pass of tests and predictions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hiera_video.errors import ConfigError
from hiera_video.runtime.precision import autocast


def forward_logits(model: nn.Module, views: Tensor, precision: str) -> Tensor:
    """Return the float32 logits [B, K] of `views`, without waiting for the device.

    Args:
        model: Maps views to logits [B, K].
        views: [B, 3, T, S, S] on the model's device.
        precision: As in `test.precision`.
    """
    with autocast(precision, views.device):
        logits: Tensor = model(views)
    return logits.float()


def check_logits(logits: Tensor, precision: str) -> None:
    """Raise `ConfigError` if fp16, whose largest number is 65504, overflowed.

    The NaN logits would still have a top class.
    """
    if precision == "fp16" and not torch.isfinite(logits).all():
        raise ConfigError(
            "test.precision=fp16: the logits are not finite; set test.precision to bf16 or fp32"
        )


def compute_logits(model: nn.Module, views: Tensor, precision: str) -> Tensor:
    """Return the float32 logits [B, K] of `views`, as `forward_logits` does, and check them.

    Raises:
        ConfigError: A logit is not finite in fp16.
    """
    logits = forward_logits(model, views, precision)
    check_logits(logits, precision)
    return logits
