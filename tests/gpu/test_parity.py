"""A GPU computes what the CPU does: outputs, losses and gradients."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from gpu_helpers import make_batch, redrawn
from torch import Tensor, nn

from hiera_video.eval.forward import compute_logits
from hiera_video.features.config import FeaturesConfig
from hiera_video.features.extract import ClipEncoder
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.models.masking import random_keep

pytestmark = pytest.mark.gpu
EXACT, HALF = 1e-5, 2e-2
MODELS = ("hiera_micro_16x32", "hiera_tiny_224")


def difference(one: Tensor, other: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    one, other = one.detach().cpu().double(), other.detach().cpu().double()
    return float((one - other).abs().max() / other.abs().max())


def norm_difference(one: Tensor, other: Tensor) -> float:
    """Return the norm of the difference, relative to the norm."""
    one, other = one.detach().cpu().double(), other.detach().cpu().double()
    return float((one - other).norm() / other.norm().clamp_min(1e-12))


def pair(name: str, device: torch.device) -> tuple[nn.Module, nn.Module]:
    """Return a model with redrawn weights on the CPU, and its copy on the device."""
    torch.manual_seed(0)
    model = redrawn(create_model(name)).eval()
    return model, deepcopy(model).to(device)


def clips_for(model: nn.Module, count: int = 2) -> Tensor:
    config: Any = model.config
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, *config.input_size, generator=generator)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("precision", "limit"), [("fp32", EXACT), ("bf16", HALF), ("fp16", HALF)])
def test_logits(name: str, precision: str, limit: float, device: torch.device) -> None:
    model, moved = pair(name, device)
    clips = clips_for(model)
    with torch.no_grad():
        expected = compute_logits(model, clips, "fp32").softmax(dim=-1)
        actual = compute_logits(moved, clips.to(device), precision).softmax(dim=-1)
    assert actual.device.type == device.type and difference(actual, expected) <= limit


@pytest.mark.slow
def test_logits_of_the_base_model(cuda: torch.device) -> None:
    model, moved = pair("hiera_base_16x224", cuda)
    clips = clips_for(model, 1)
    with torch.no_grad():
        expected = compute_logits(model, clips, "fp32")
        assert difference(compute_logits(moved, clips.to(cuda), "fp32"), expected) <= EXACT
        assert difference(compute_logits(moved, clips.to(cuda), "bf16"), expected) <= 3 * HALF


def test_intermediate_maps(device: torch.device) -> None:
    model, moved = pair("hiera_micro_16x32", device)
    assert isinstance(model, Hiera) and isinstance(moved, Hiera)
    clips = clips_for(model)
    with torch.no_grad():
        expected = model.forward_intermediates(clips)
        actual = moved.forward_intermediates(clips.to(device))
    assert max(difference(a, b) for a, b in zip(actual, expected)) <= EXACT


@pytest.mark.parametrize("pooling", ["mean", "max", "temporal", "none"])
def test_features(pooling: Any, device: torch.device) -> None:
    model, moved = pair("hiera_micro_16x32", device)
    assert isinstance(model, Hiera) and isinstance(moved, Hiera)
    config = FeaturesConfig(pooling=pooling, stages=(1, 3), precision="fp32", dtype="fp32")
    clips = clips_for(model)
    expected = ClipEncoder(model, config, torch.device("cpu"))(clips)
    actual = ClipEncoder(moved, config, device)(clips.to(device))
    assert sorted(actual) == ["stage1", "stage3"]
    assert max(difference(actual[name], expected[name]) for name in actual) <= EXACT


def gradients(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> dict[str, Tensor]:
    """Return the loss and all gradients by name."""
    model.zero_grad(set_to_none=True)
    value = loss(model)
    value.backward()  # type: ignore[no-untyped-call]
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": value.detach(), **found}


def assert_same_gradients(
    actual: dict[str, Tensor], expected: dict[str, Tensor], *, half: bool
) -> None:
    """Compare the loss and the gradients: each in float32, all together in half precision."""
    assert actual.keys() == expected.keys()
    limit = HALF if half else EXACT
    assert difference(actual.pop("loss"), expected.pop("loss")) <= limit
    everything = [
        torch.cat([found[name].detach().cpu().flatten() for name in expected])
        for found in (actual, expected)
    ]
    assert norm_difference(*everything) <= 5 * limit
    largest = max(float(value.norm()) for value in expected.values())
    for name, value in expected.items() if not half else ():
        if float(value.norm()) > 1e-3 * largest:  # a key's bias has no gradient but rounding
            assert norm_difference(actual[name], value) <= 5 * limit, name


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
def test_fine_tuning_gradients(half: bool, device: torch.device) -> None:
    model, moved = pair("hiera_micro_16x32", device)
    batch = make_batch()

    def loss(model: nn.Module) -> Tensor:
        on = next(model.parameters()).device
        with torch.autocast(on.type, dtype=torch.bfloat16, enabled=half and model is moved):
            logits = model(batch.clips.to(on)).float()
        return torch.nn.functional.cross_entropy(logits, batch.labels.to(on))

    assert_same_gradients(gradients(moved, loss), gradients(model, loss), half=half)


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
def test_pre_training_loss_and_gradients(half: bool, device: torch.device) -> None:
    model, moved = pair("mae_hiera_micro_16x32", device)
    batch = make_batch()
    config: Any = model.config
    keep = random_keep(
        4, config.num_units, 0.75, [torch.Generator().manual_seed(n) for n in range(4)]
    )

    def loss(model: nn.Module) -> Tensor:
        on = next(model.parameters()).device
        with torch.autocast(on.type, dtype=torch.bfloat16, enabled=half and model is moved):
            return model(batch.clips.to(on), keep=keep.to(on)).loss  # type: ignore[no-any-return]

    assert_same_gradients(gradients(moved, loss), gradients(model, loss), half=half)


def test_masks_are_the_same_on_both(device: torch.device) -> None:
    model, moved = pair("mae_hiera_micro_16x32", device)
    clips = clips_for(model)
    config: Any = model.config
    generators = [torch.Generator().manual_seed(n) for n in range(2)]
    keep = random_keep(2, config.num_units, 0.75, generators)
    with torch.no_grad():
        expected, actual = model(clips, keep=keep), moved(clips.to(device), keep=keep.to(device))
    assert torch.equal(actual.masked.cpu(), expected.masked)
    assert difference(actual.target, expected.target) <= EXACT
    assert difference(actual.pred, expected.pred) <= EXACT
