"""What the loop logs of time and machine: the arithmetic of every number."""

from __future__ import annotations

import resource
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hiera_video.runtime.distributed import ALONE
from hiera_video.train import meter as module
from hiera_video.train.devices import peak_flops, peak_memory_gb
from hiera_video.train.meter import Meter


def test_a_device_is_known_by_the_longest_part_of_its_name() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("NVIDIA A100-SXM4-40GB") == 312e12
    assert peak_flops("NVIDIA A10G") == 70e12 and peak_flops("NVIDIA A10") == 125e12
    assert peak_flops("") is None and peak_flops("Radeon VII") is None


def test_numbers_since_the_last_row(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(module, "device_name", lambda _: "NVIDIA A100")
    meter = Meter(ALONE, 312e12 / 100)
    for loss, waited in ((1.0, 2.0), (3.0, 0.0)):
        with meter.waiting():
            now[0] += waited
        now[0] += 1
        meter.add({"loss": loss}, clips=6)
    with meter.paused():  # a validation
        now[0] += 1000
    found = meter.take()
    assert found["loss"] == 2 and found["clips_per_second"] == 12 / 4 and found["data_wait_share"] == 2 / 4
    assert found["mfu"] == pytest.approx(3 / 100)


@pytest.mark.parametrize(("system", "largest"), [("linux", 2_000_000), ("darwin", 2_048_000_000)])
def test_memory_is_in_the_systems_own_unit(system: str, largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    used: Any = SimpleNamespace(ru_maxrss=largest)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(resource, "getrusage", lambda _: used)
    assert peak_memory_gb(torch.device("cpu")) == 2.048
