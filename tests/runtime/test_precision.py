"""Data type of a matrix product under each precision."""

from __future__ import annotations

import pytest
import torch

from hiera_video.runtime.precision import autocast

PRODUCTS = {
    "auto": torch.float32,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@pytest.mark.parametrize("precision", PRODUCTS)
def test_products_on_a_cpu(precision: str) -> None:
    with autocast(precision, torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == PRODUCTS[precision]
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("capable", [True, False])
def test_auto_is_bf16_on_a_gpu_with_native_support(
    capable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or capable

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch, "autocast", lambda kind, dtype: (kind, dtype))
    monkeypatch.setattr("hiera_video.runtime.precision.exact_fp32", lambda: "exact")
    found: object = autocast("auto", torch.device("cuda"))
    assert found == ("cuda", torch.bfloat16) if capable else found == "exact"
