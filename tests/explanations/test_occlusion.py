"""Unit occlusion agrees with deleting one unit at a time, and its error is that of its draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hiera_video.errors import ConfigError
from hiera_video.explanations.occlusion import difference_of_means, unit_occlusion
from hiera_video.models.hiera import Hiera
from hiera_video.models.layout import HieraConfig


def ranks(values: Tensor) -> Tensor:
    return values.flatten().argsort().argsort().double()


@pytest.fixture
def small_model() -> Hiera:
    """A model of 4×2×2 units whose logits depend on each of them."""
    torch.manual_seed(0)
    config = HieraConfig(
        input_size=(8, 16, 16), embed_dim=8, stages=(1, 1), q_pool=1, mask_unit_size=(1, 2, 2),
        mask_unit_attn=(True, False), num_classes=3,
    )  # fmt: skip
    model = Hiera(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return model


@torch.inference_mode()
def test_random_sets_rank_units_as_single_deletions_do(small_model: Hiera) -> None:
    clip = torch.randn(3, 8, 16, 16, generator=torch.Generator().manual_seed(1))
    single, clips = ~torch.eye(16, dtype=torch.bool), clip.expand(16, -1, -1, -1, -1)
    features = small_model.encode(clips, keep=single)[-1]
    effect = small_model(clips)[:, 1] - small_model.forward_head(features)[:, 1]
    found = unit_occlusion(small_model, clip, 1, draws=1024, hidden=0.1, batch_size=256)
    assert found.maps.shape == found.standard_error.shape == (4, 2, 2)
    pair = torch.stack([ranks(found.maps), ranks(effect)])
    assert float(torch.corrcoef(pair)[0, 1]) >= 0.9


def test_the_difference_of_means_and_its_error() -> None:
    keep = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 1], [0, 0, 1]]).bool()
    values = torch.tensor([4.0, 2.0, 0.0, 6.0, 1.0, 2.0], dtype=torch.float64)
    maps, error = difference_of_means(values, keep)
    assert maps[0].item() == pytest.approx(4.0 - 1.0)
    # variances 4 and 1 of three values each
    assert error[0].item() == pytest.approx(((4 + 1) / 3) ** 0.5)
    assert maps[2].item() == pytest.approx(1.25 - 5.0)


def test_the_seed_decides(small_model: Hiera) -> None:
    clip = torch.randn(3, 8, 16, 16)
    first, again, other = (
        unit_occlusion(small_model, clip, 0, draws=32, seed=seed).maps for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(
    ("draws", "words"),
    [
        (2, "draws=2: too few to show and hide each of 16 units twice; raise draws"),
        (0, "draws=0: must be 1 or more"),
    ],
)
def test_too_few_draws(small_model: Hiera, draws: int, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        unit_occlusion(small_model, torch.zeros(3, 8, 16, 16), 0, draws=draws)
    assert str(error.value) == words
