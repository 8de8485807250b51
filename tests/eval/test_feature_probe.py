from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from hiera_video import create_model
from hiera_video.eval.feature_probe import (
    PENALTY,
    choose_probe_labels,
    clip_features,
    leave_one_out_top1,
)


def test_probed_videos_are_spread_over_the_list() -> None:
    labels = [None, *[row % 3 for row in range(4000)]]
    chosen = choose_probe_labels(labels)
    assert len(chosen) == 2000
    assert list(chosen)[:3] == [1, 3, 5] and list(chosen)[-1] == 3999
    assert chosen[3] == 2


@pytest.mark.parametrize("labels", [[], [None] * 50, [0, 1] * 9, [1] * 50, [(0, 1)] * 50], ids=str)
def test_too_few_labels_are_not_probed(labels: list[int | tuple[int, ...] | None]) -> None:
    assert choose_probe_labels(labels) == {}


def test_separated_classes_are_found_and_noise_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    noise = torch.randn(60, 40, generator=generator)
    assert leave_one_out_top1(noise + 8 * F.one_hot(labels, 40), labels) == 100.0
    assert leave_one_out_top1(noise, labels) == pytest.approx(100 * 19 / 60)
    assert leave_one_out_top1(torch.ones(60, 40), labels) < 50.0  # collapsed features


def test_leaving_out_equals_fitting_without() -> None:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(24) % 2
    features = torch.randn(24, 6, generator=generator).double() + labels.unsqueeze(1) * 0.4
    deviation, mean = torch.std_mean(features, dim=0, correction=0)
    scaled = (features - mean) / deviation
    penalty = PENALTY * scaled.square().sum(1).mean()
    found = 0
    for row in range(24):
        rest = torch.arange(24) != row
        known, targets = scaled[rest], F.one_hot(labels[rest]).double()
        inputs = known - known.mean(0)
        gram = inputs.T @ inputs + penalty * torch.eye(6)
        solution = torch.linalg.solve(gram, inputs.T @ (targets - targets.mean(0)))
        answer = (scaled[row] - known.mean(0)) @ solution + targets.mean(0)
        found += int(answer.argmax() == labels[row])
    assert leave_one_out_top1(features.float(), labels) == pytest.approx(100 * found / 24)
    assert 50 < 100 * found / 24 < 100


def test_time_steps_stay_apart() -> None:
    torch.manual_seed(0)
    model = create_model("mae_hiera_micro_16x32").eval()
    clips = torch.rand(2, 3, 16, 32, 32)
    features = clip_features(model, clips)
    last = model.forward_features(clips)
    assert features.shape == (2, 8 * last.shape[-1])
    assert torch.allclose(features[1, : last.shape[-1]], last[1, 0].mean((0, 1)), atol=1e-5)
