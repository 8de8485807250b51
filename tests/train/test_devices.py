"""Peak speed and memory of devices, and compiled blocks."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from hiera_video.models.factory import create_model
from hiera_video.train.devices import compile_blocks, peak_flops, peak_memory_gb
from hiera_video.train.parallel import transformer_blocks


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


@pytest.mark.slow
def test_compiled_blocks_keep_parameter_names_and_results() -> None:
    torch.manual_seed(0)
    model = create_model("hiera_micro_16x32", num_classes=3).eval()
    names, clips = list(model.state_dict()), torch.randn(2, 3, 16, 32, 32)
    plain = model(clips)
    compile_blocks(model, backend="aot_eager")
    assert torch.allclose(model(clips), plain, atol=1e-6) and list(model.state_dict()) == names
    assert not torch.equal(model(clips + 1), plain)


@pytest.mark.slow
def test_every_kind_of_block_is_compiled_for_training_and_validation() -> None:
    """Torch silently runs blocks uncompiled beyond its limit of variants."""
    model = create_model("mae_hiera_tiny_16x224", input_size=(16, 64, 64))
    clips, compiled = torch.randn(1, 3, 16, 64, 64), []

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
    assert len(compiled) == 4 * len(transformer_blocks(model))


@pytest.mark.parametrize(("system", "largest"), [("linux", 2_000_000), ("darwin", 2_048_000_000)])
def test_memory_is_converted_from_the_unit_of_the_system(
    system: str, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=largest))
    assert peak_memory_gb(torch.device("cpu")) == 2.048
