"""What each word for a precision makes of a matrix product."""

from __future__ import annotations

import pytest
import torch

from hiera_video.runtime.precision import autocast

PRODUCTS = {"auto": torch.float32, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.mark.parametrize("precision", PRODUCTS)
def test_products_on_a_cpu(precision: str) -> None:
    with autocast(precision, torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == PRODUCTS[precision]
    assert not torch.is_autocast_enabled("cpu")
