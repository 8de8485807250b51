"""Batches reach the GPU whole, whatever the GPU is busy with, and results come back whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from gpu_helpers import make_batch
from torch import Tensor

from hiera_video.data.loading.loader import ClipBatch
from hiera_video.features.config import FeaturesConfig
from hiera_video.features.extract import BatchRunner, ClipEncoder
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.train.feed import feed_steps

pytestmark = pytest.mark.gpu


def busy(device: torch.device) -> None:
    """Queue some milliseconds of work."""
    side = 4096 if device.type == "cuda" else 64
    square = torch.ones(side, side, device=device)
    for _ in range(10):
        square = square @ square / side


def steps(count: int, micro_batches: int) -> Iterator[list[ClipBatch]]:
    for step in range(count):
        first = step * micro_batches
        yield [make_batch(2 + step % 3, step=first + part) for part in range(micro_batches)]


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_training_batches(micro_batches: int, device: torch.device) -> None:
    """Sizes change, the device lags behind, and memory is reused."""
    sums: list[Tensor] = []
    received = 0
    for step in feed_steps(steps(20, micro_batches), device):
        for batch in step:
            moved = batch.to(device)
            assert moved.clips.device.type == moved.labels.device.type == device.type
            assert moved.row.device.type == moved.position.device.type == "cpu"
            busy(device)
            sums.append((moved.clips.double() * torch.arange(32, device=device)).sum())
            sums.append(moved.labels.double().sum())
            del moved
            received += 1
    assert received == 20 * micro_batches
    expected = [
        value
        for step in steps(20, micro_batches)
        for batch in step
        for value in ((batch.clips.double() * torch.arange(32)).sum(), batch.labels.double().sum())
    ]
    torch.testing.assert_close(torch.stack(sums).cpu(), torch.stack(expected))


def test_features_of_many_batches(device: torch.device) -> None:
    torch.manual_seed(0)
    model = create_model("hiera_micro_16x32")
    assert isinstance(model, Hiera)
    config = FeaturesConfig(precision="fp32", dtype="fp32")
    encoder = ClipEncoder(model, config, device)
    clips = torch.randn(27, 3, 16, 32, 32)
    runner = BatchRunner(encoder, 4, (3, 16, 32, 32))
    for number, clip in enumerate(clips):
        scratch = clip.clone()
        runner.add(scratch)
        if number % 5 == 0:
            busy(device)
    features = runner.finish()
    expected = torch.cat(
        [encoder(part.to(device))["stage3"].cpu() for part in torch.split(clips, 1)]
    )
    assert features["stage3"].shape == expected.shape == (27, 256)
    torch.testing.assert_close(features["stage3"], expected, rtol=1e-4, atol=1e-5)
