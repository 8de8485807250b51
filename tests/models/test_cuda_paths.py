"""Models on tensors of a GPU that hold no data, so that none is needed.

A tensor on the wrong device is an error here, and so is any read on the host, for which it would
wait for a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.models.mae import MaeOutput, MaskedAutoencoderHiera
from hiera_video.models.registry import default_mae
from hiera_video.train.tasks import collapse_monitors

pytestmark = pytest.mark.slow  # FakeTensorMode imports the compiler: seconds
GPU = torch.device("cuda", 0)
MAE = "mae_hiera_micro_16x32"


@contextmanager
def bf16() -> Iterator[None]:
    """Enable autocast; `torch.autocast` refuses without a GPU."""
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)


@pytest.fixture(autouse=True)
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)


def move(model: nn.Module) -> None:
    """Replace parameters and buffers by tensors on the GPU, under `FakeTensorMode`."""
    for module in model.modules():
        for name, value in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty(value.shape, device=GPU)))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=GPU))


def run_mae(model: MaskedAutoencoderHiera, **more: Any) -> MaeOutput:
    """Run the forward pass on the GPU, in training with drop path."""
    count, tokens = model.config.num_units, model.unit_tokens.numel()
    with FakeTensorMode():
        move(model)
        with bf16():
            output: MaeOutput = model(
                torch.empty(2, 3, 16, 32, 32, device=GPU),
                keep=torch.empty(2, count, dtype=torch.bool, device=GPU),
                path_draws=torch.empty(2, 4, 2, device=GPU),
                decoder_draws=torch.empty(2, tokens, device=GPU),
                **more,
            )
            std, rank = collapse_monitors(output.latent)
    assert output.pred.dtype == torch.bfloat16 and output.loss.dtype == torch.float32
    assert {std.device, rank.device, output.masked.device} == {GPU}
    return output


@pytest.mark.parametrize("training", [True, False])
def test_classifier(training: bool) -> None:
    model = create_model("hiera_micro_16x32", num_classes=3, drop_path_rate=0.2).train(training)
    assert isinstance(model, Hiera)
    with FakeTensorMode():
        move(model)
        with bf16():
            logits = model(
                torch.empty(2, 3, 16, 32, 32, device=GPU),
                path_draws=torch.empty(2, 4, 2, device=GPU) if training else None,
            )
    assert logits.device == GPU and logits.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"target": "hog", "target_frames": "all", "decoder_tokens": "running_cell"},
        {"masking": "tube", "mask_ratio": 0.75, "decoder_tokens": "random"},
    ],
    ids=str,
)
def test_masked_autoencoder(options: dict[str, Any]) -> None:
    mae = replace(default_mae(MAE), **options)
    model = create_model(MAE, mae=mae, drop_path_rate=0.2)
    assert isinstance(model, MaskedAutoencoderHiera)
    assert run_mae(model, visible=model.num_visible_units()).loss.device == GPU


def test_units_are_counted_on_the_host_unless_their_number_is_given() -> None:
    model = create_model(MAE)
    assert isinstance(model, MaskedAutoencoderHiera)
    with pytest.raises(DataDependentOutputException):
        run_mae(model)
