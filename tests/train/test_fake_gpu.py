"""No forward pass on a GPU mixes devices, checked without a GPU by fake tensors.

Fake tensors have a device and a shape but no memory. Backward passes would need the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from hiera_video.data.config import AugmentConfig
from hiera_video.data.loading.loader import ClipBatch
from hiera_video.data.transforms.clip_sample import Erasure, PendingCrop
from hiera_video.data.transforms.on_device import PendingBatch, finish_batch
from hiera_video.eval.forward import compute_logits
from hiera_video.features.config import FeaturesConfig
from hiera_video.features.extract import ClipEncoder
from hiera_video.models.hiera import Hiera
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.registry import MaeConfig, config_for
from hiera_video.train.context import StepContext
from hiera_video.train.tasks import Classify, Pretrain, TaskOutput

GPU = torch.device("cuda", 0)
MICRO = replace(config_for("hiera_micro_16x32"), num_classes=5, drop_path_rate=0.2)
MICRO_MAE = config_for("mae_hiera_micro_16x32")


@pytest.fixture(autouse=True)
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let models move to fake devices, and skip checks that need the driver."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    yield
    torch.__future__.set_overwrite_module_params_on_conversion(before)


def on_gpu(compute: Callable[[Any], Tensor], model: nn.Module | None = None) -> torch.device:
    """Return the device of the result of `compute`, given a model on the GPU."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        if model is not None:
            model.to_empty(device=GPU)
        return compute(model).device


@pytest.fixture
def batch() -> ClipBatch:
    """Return real tensors on the CPU, as a loader does, because seeds are made of them."""
    numbers = torch.arange(2)
    clips = torch.zeros(2, 3, *MICRO.input_size)
    return ClipBatch(
        clips=clips, labels=numbers, row=numbers, view=numbers, position=numbers, substituted=()
    )


def logged(output: TaskOutput) -> Tensor:
    assert {value.device for value, _ in output.logs.values()} <= {GPU}
    return output.loss


def test_mixed_devices_are_detected() -> None:
    """Test the check itself."""
    with pytest.raises(Exception, match=r"cuda.*cpu|cpu.*cuda"):
        on_gpu(lambda _: torch.zeros(2, device=GPU) * torch.ones(2))


@pytest.mark.parametrize("mixing", [0.0, 0.8])
def test_a_fine_tuning_step(mixing: float, batch: ClipBatch) -> None:
    augment = AugmentConfig(mixup=mixing, cutmix=mixing)
    weights = tuple([0.5] * 5)
    task = Classify(
        num_classes=5,
        multi_label=False,
        augment=augment,
        class_weights=weights,
    )
    model = Hiera(MICRO, checkpointing=True).train()
    context = StepContext(0, 3, batch.position, MICRO.depth, GPU)
    assert on_gpu(lambda moved: logged(task(moved, batch.to(GPU), context)), model) == GPU


@pytest.mark.parametrize(
    "mae",
    [
        MaeConfig(),
        MaeConfig(decoder_tokens="running_cell"),
        MaeConfig(decoder_tokens="random"),
        MaeConfig(masking="tube", mask_ratio=0.5),
        MaeConfig(masking="future", mask_ratio=0.5),
        MaeConfig(target="hog"),
        MaeConfig(target_frames="all"),
    ],
    ids=lambda mae: f"{mae.masking}-{mae.target}-{mae.target_frames}-{mae.decoder_tokens}",
)
def test_a_pretraining_step(mae: MaeConfig, batch: ClipBatch) -> None:
    model = MaskedAutoencoderHiera(MICRO_MAE, mae).train()
    task = Pretrain(draw_keep=model.draw_keep, tokens=model.unit_tokens.numel())
    context = StepContext(0, 3, batch.position, MICRO_MAE.depth, GPU)
    assert on_gpu(lambda moved: logged(task(moved, batch.to(GPU), context)), model) == GPU


@pytest.mark.parametrize("pooling", ["mean", "max", "temporal", "none"])
def test_features(pooling: Any) -> None:
    model = Hiera(MICRO)

    def stage3(_: None) -> Tensor:
        encoder = ClipEncoder(
            model, FeaturesConfig(pooling=pooling, stages=(3,), precision="fp32"), GPU
        )
        return encoder(torch.zeros(2, 3, *MICRO.input_size, device=GPU))["stage3"]

    assert on_gpu(stage3) == GPU


def test_logits() -> None:
    def logits(moved: Hiera) -> Tensor:
        return compute_logits(moved, torch.zeros(2, 3, *MICRO.input_size, device=GPU), "fp32")

    assert on_gpu(logits, Hiera(MICRO)) == GPU


def test_finishing_crops() -> None:
    erasure = Erasure(top=1, left=2, noise=torch.zeros(4, 3, 5, 6))
    common: dict[str, Any] = {"size": 32, "mean": (0.4,) * 3, "std": (0.2,) * 3}
    crops = [
        PendingCrop(shape=(4, 30, 40), flip=True, erasure=None, **common),
        PendingCrop(shape=(4, 50, 20), flip=False, erasure=erasure, **common),
    ]
    pixels = 4 * (30 * 40 + 50 * 20) * 3
    batch = PendingBatch.of(crops)

    def finish(_: None) -> Tensor:
        moved = batch.on_device([tensor.to(GPU) for tensor in batch.tensors()])
        return finish_batch(torch.zeros(pixels, dtype=torch.uint8, device=GPU), moved)

    assert on_gpu(finish) == GPU
