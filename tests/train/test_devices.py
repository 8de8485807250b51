"""Peaks by name, compiled blocks that compute the same, and what the log makes of time."""

from __future__ import annotations

import logging
import resource
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from hiera_video.models.factory import create_model
from hiera_video.runtime.distributed import World
from hiera_video.train import meter as meter_module
from hiera_video.train.devices import compile_blocks, peak_flops, peak_memory_gb
from hiera_video.train.meter import LoaderWatch, Meter
from hiera_video.train.parallel import blocks_of


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
def test_peak(name: str, tflops: int | None) -> None:
    assert peak_flops(name) == (None if tflops is None else tflops * 1e12)


def test_compiled_blocks_keep_names_and_numbers() -> None:
    torch.manual_seed(0)
    model = create_model("hiera_micro_16x32", num_classes=3).eval()
    names, clips = list(model.state_dict()), torch.randn(2, 3, 16, 32, 32)
    plain = model(clips)
    compile_blocks(model, backend="aot_eager")
    assert torch.allclose(model(clips), plain, atol=1e-6) and list(model.state_dict()) == names
    assert not torch.equal(model(clips + 1), plain)


def test_every_kind_of_block_is_compiled_in_training_and_in_validation() -> None:
    """torch runs what is beyond its limit of variants uncompiled, without a word."""
    model, clips, compiled = (
        create_model("mae_hiera_tiny_16x224", input_size=(16, 64, 64)),
        torch.randn(1, 3, 16, 64, 64),
        [],
    )

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
        def run(*arguments: torch.Tensor) -> object:
            compiled.append(graph)
            return graph.forward(*arguments)

        return run

    torch.compiler.reset()
    compile_blocks(model, backend=backend)
    for _ in range(2):
        model.train()(clips)
        with torch.no_grad():
            model.eval()(clips)
    assert len(compiled) == 4 * len(blocks_of(model))


def test_mfu_is_arithmetic_over_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(meter_module.time, "monotonic", lambda: now)
    monkeypatch.setattr(meter_module, "peak_flops", lambda name: 1000.0)
    meter = Meter(World(0, 2, torch.device("cpu")), flops_per_clip=50.0)
    with meter.waiting():
        now = 1.0
    meter.add({"loss": 3.0}, clips=40)
    meter.add({"loss": 1.0}, clips=40)
    now = 4.0
    numbers = meter.take()
    # 80 clips in 4 s are 20 a second, × 50 operations = 1000 of 2 × 1000
    assert numbers.pop("memory_gb") == peak_memory_gb(torch.device("cpu")) > 0.1
    assert numbers == {"loss": 2.0, "clips_per_second": 20.0, "data_wait_share": 0.25, "mfu": 0.5}
    meter.add({"loss": 5.0}, clips=40)
    now = 5.0
    assert meter.take()["loss"] == 5.0


def test_a_slow_loader_is_told_once_until_it_is_not(caplog: pytest.LogCaptureFixture) -> None:
    watch, told = LoaderWatch(), []
    with caplog.at_level(logging.WARNING):
        for share in (0.9, 0.1, 0.3, 0.4, 0.05, 0.5):
            watch.look(share)
            told.append(len(caplog.records))
    assert told == [0, 0, 1, 1, 1, 2]
    assert (
        "30 % of the time the model waits for clips; raise data.workers"
        in caplog.records[0].getMessage()
    )


@pytest.mark.parametrize(("system", "largest"), [("linux", 2_000_000), ("darwin", 2_048_000_000)])
def test_memory_is_in_the_systems_own_unit(
    system: str, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=largest))
    assert peak_memory_gb(torch.device("cpu")) == 2.048
