from __future__ import annotations

import pytest
import torch

from hiera_video.models.factory import create_model
from hiera_video.models.macs import count_macs, count_parameters

# from the paper or measured: 10**6 parameters, 10**9 multiply-accumulates a 16x224 view
PUBLISHED = {
    "hiera_tiny_16x224": (27.478, 50.9),
    "hiera_small_16x224": (34.576, 69.5),
    "hiera_base_16x224": (51.093, 101.7),
    "hiera_base_plus_16x224": (69.392, 132.3),
    "hiera_large_16x224": (213.092, 412.1),
    "hiera_huge_16x224": (671.628, 1157.8),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_cost_is_as_published(name):
    with torch.device("meta"):
        model = create_model(name)
    parameters, macs = PUBLISHED[name]
    assert count_parameters(model) / 1e6 == pytest.approx(parameters, rel=0.005)
    assert count_macs(model, (3, 16, 224, 224)) / 1e9 == pytest.approx(macs, rel=0.005)


def test_longer_clips_and_the_autoencoder():
    with torch.device("meta"):
        large = create_model("hiera_large_16x224", input_size=(32, 224, 224))
        autoencoder = create_model("mae_hiera_base_16x224")
    assert count_macs(large, (3, 32, 224, 224)) / 1e9 == pytest.approx(1027.5, rel=0.005)
    hidden = (
        8 * 56 * 56 * 96 * (3 * 3 * 7 * 7) * (392 - 39) / 392
    )  # patches that the authors' model embeds and drops
    assert count_macs(autoencoder, (3, 16, 224, 224)) == pytest.approx(71.3e9 - hidden, rel=0.001)


def test_counting_leaves_the_model_as_it_was():
    model = create_model("hiera_micro_16x32", num_classes=10).train()
    assert count_macs(model, (3, 16, 32, 32)) == 143_952_384
    assert model.training
    assert model.norm.weight.device.type == "cpu"
