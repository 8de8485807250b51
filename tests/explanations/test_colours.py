"""Colours of features: the components of a known cloud, and one basis for several clips."""

from __future__ import annotations

import pytest
import torch

from hiera_video.errors import ConfigError
from hiera_video.explanations.colours import fit_colours


def test_components_of_a_known_cloud() -> None:
    """Channel 4 varies most, then 0, then 2."""
    steps = torch.linspace(-1, 1, 101)
    features = torch.zeros(303, 5)
    features[:101, 4], features[101:202, 0], features[202:, 2] = 9 * steps, 4 * steps, steps
    basis = fit_colours(features + 7)
    assert torch.allclose(basis.axes, torch.eye(5)[:, [4, 0, 2]].double(), atol=1e-9)
    assert basis.explained == pytest.approx(1.0)
    # 2 % of 303 values are above 9 × 0.88
    assert float(basis.high[0]) == pytest.approx(7.92) == -float(basis.low[0])
    assert basis.colours(torch.full((2, 2, 5), 7.0))[0, 1].tolist() == pytest.approx([0.5] * 3)
    bright = torch.full((5,), 7.0)
    bright[4] = 100.0
    assert basis.colours(bright).tolist() == pytest.approx([1.0, 0.5, 0.5])


def test_a_component_without_variance_is_grey() -> None:
    features = torch.zeros(8, 4)
    features[:, 1] = torch.arange(8)
    colours = fit_colours(features).colours(features)
    assert colours[:, 1:].tolist() == [[0.5, 0.5]] * 8
    assert colours[[0, 7], 0].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("shape", [(3, 8), (9, 2)])
def test_too_few_features(shape: tuple[int, int]) -> None:
    with pytest.raises(ConfigError) as error:
        fit_colours(torch.zeros(shape))
    assert str(error.value).startswith(
        f"{shape[0]} features of {shape[1]} channels: three components need 4 features or more"
    )
