"""A trained model's answers, in the precision asked for: the call that tests and predictions share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hiera_video.errors import ConfigError
from hiera_video.runtime.precision import autocast


def compute_logits(model: nn.Module, views: Tensor, precision: str) -> Tensor:
    """Views [B, 3, T, S, S] on the model's device → float32 logits [B, K]; `precision` is that of `test.precision`.

    Raises `ConfigError` where fp16, whose largest number is 65504, overflowed: NaN has a likeliest class too.
    """
    with autocast(precision, views.device):
        logits: Tensor = model(views)
    logits = logits.float()
    if precision == "fp16" and not torch.isfinite(logits).all():
        raise ConfigError(
            "test.precision=fp16: the model's answers are not finite; set test.precision to bf16 or fp32"
        )
    return logits
