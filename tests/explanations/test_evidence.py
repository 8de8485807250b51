"""Class evidence adds up to the logits, and lies where the signal is."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import pytest
import torch
from torch import nn

from hiera_video.errors import ConfigError
from hiera_video.explanations.evidence import class_evidence
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera


@torch.no_grad()
def redrawn(name: str, input_size: tuple[int, ...]) -> Hiera:
    """Return a model whose logits depend on its input; the initial head is close to zero."""
    torch.manual_seed(0)
    # truncated draws would take ten seconds for the large model
    with mock.patch("torch.nn.init.trunc_normal_", nn.init.normal_):
        model = create_model(name, num_classes=5, input_size=input_size).eval()
    assert isinstance(model, Hiera)
    head = model.get_classifier()
    assert isinstance(head, nn.Linear)
    nn.init.normal_(head.weight, std=0.05)
    for parameter in (model.norm.weight, model.norm.bias, head.bias):
        parameter.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize(
    ("name", "size", "grid"),
    [
        ("hiera_micro_16x32", (16, 32, 32), (8, 2, 2)),
        pytest.param("hiera_base_16x224", (4, 224, 224), (2, 7, 7), marks=pytest.mark.slow),
        pytest.param("hiera_large_16x224", (2, 224, 224), (1, 7, 7), marks=pytest.mark.slow),
        pytest.param("hiera_base_224", (224, 224), (7, 7), marks=pytest.mark.slow),
    ],
)
def test_evidence_and_constant_add_up_to_the_logits(
    name: str, size: tuple[int, ...], grid: tuple[int, ...]
) -> None:
    model = redrawn(name, size)
    clips = torch.randn(1, 3, *size)
    with torch.inference_mode():
        expected = model(clips)
    assert expected.std() > 0.1
    targets = range(5) if name == "hiera_micro_16x32" else [1]
    for target in targets:
        found = class_evidence(model, clips, torch.tensor([target]))
        assert found.maps.shape == (1, *grid)
        total = found.maps.sum() + found.constant
        assert abs(total.item() - expected[0, target].item()) <= 1e-5
        assert torch.equal(found.logits, expected)


def test_the_default_target_is_the_most_likely_class(random_model: Callable[[], Hiera]) -> None:
    model = random_model().eval()
    clips = torch.randn(3, 3, 16, 32, 32)
    found = class_evidence(model, clips)
    assert torch.equal(found.targets, model(clips).argmax(dim=1))
    assert torch.allclose(
        found.maps.flatten(1).sum(dim=1) + found.constant, found.logits.amax(dim=1), atol=1e-5
    )


def test_evidence_of_a_known_map(
    random_model: Callable[[], Hiera], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One token has one channel above 0, which has a weight of 2 for class 0."""
    model = random_model().eval()
    features = torch.zeros(1, 8, 2, 2, 256)
    features[0, 3, 0, 1, 0] = 32.0  # the mean over 32 tokens is 1 in channel 0
    monkeypatch.setattr(model, "forward_features", lambda clips: features)
    with torch.no_grad():
        head = model.get_classifier()
        assert isinstance(head, nn.Linear)
        nn.init.zeros_(head.weight)
        head.weight[0, 0] = 2.0
        nn.init.constant_(head.bias, 0.5)
        nn.init.ones_(model.norm.weight)
        nn.init.zeros_(model.norm.bias)
    found = class_evidence(model, torch.zeros(1, 3, 16, 32, 32), torch.tensor([0]))
    # mean 1/256, variance (1 - 1/256) / 256: the channel becomes (255/256) / sqrt(255/65536 + 1e-6)
    assert found.maps[0, 3, 0, 1].item() == pytest.approx(31.9336, abs=2e-3)
    assert found.maps.count_nonzero() == 1
    assert found.constant.item() == 0.5


def test_a_masked_autoencoder_has_no_evidence() -> None:
    model = create_model("mae_hiera_micro_16x32")
    with pytest.raises(ConfigError) as error:
        class_evidence(model, torch.zeros(1, 3, 16, 32, 32))
    assert str(error.value) == (
        "MaskedAutoencoderHiera: has no pooled logits to explain; give a Hiera classifier"
    )
