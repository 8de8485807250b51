"""Logits are float32 in every precision; an overflow in fp16 is an error."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hiera_video.errors import ConfigError
from hiera_video.eval.config import TestConfig
from hiera_video.eval.forward import compute_logits


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_logits_are_float32(precision: str) -> None:
    generator = torch.Generator().manual_seed(0)
    model, views = nn.Linear(8, 3), torch.randn(4, 8, generator=generator)
    with torch.inference_mode():
        found, exact = compute_logits(model, views, precision), model(views)
    assert found.dtype == torch.float32
    assert torch.equal(found, exact) == (precision == "fp32")
    assert torch.allclose(found, exact, atol=2e-2)


def test_fp16_overflow_is_an_error() -> None:
    model, views = nn.Linear(1, 2, bias=False), torch.ones(1, 1)
    nn.init.constant_(model.weight, 1e5)
    words = "test.precision=fp16: the logits are not finite; set test.precision to bf16 or fp32"
    with torch.inference_mode():
        assert compute_logits(model, views, "bf16").isfinite().all()
        with pytest.raises(ConfigError, match=words):
            compute_logits(model, views, "fp16")


def test_unknown_precision_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"test.precision='half': choose one of fp32, bf16, fp16"):
        TestConfig(precision="half")  # type: ignore[arg-type]
