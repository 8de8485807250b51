"""Peak speed and memory of devices."""

from __future__ import annotations

import resource
import sys
from types import SimpleNamespace

import pytest
import torch

from hiera_video.train.devices import peak_flops, peak_memory_gb


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA A10G", 70),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 4090", 165),
        ("", None),
        ("Some L4000", None),
    ],
)
def test_peak_flops(name: str, tflops: int | None) -> None:
    assert peak_flops(name) == (None if tflops is None else tflops * 1e12)


@pytest.mark.parametrize(("system", "largest"), [("linux", 2_000_000), ("darwin", 2_048_000_000)])
def test_memory_is_converted_from_the_unit_of_the_system(
    system: str, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=largest))
    assert peak_memory_gb(torch.device("cpu")) == 2.048
