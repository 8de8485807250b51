"""Probes on features with known answers; test labels must not choose a setting."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from hiera_video.errors import ConfigError, ManifestError
from hiera_video.probe.config import KINDS, Kind, ProbeConfig
from hiera_video.probe.probes import (
    AttentiveHead,
    KnnSetting,
    LabelledFeatures,
    choose_setting,
    run_probe,
    settings_of,
    split_folds,
)

FEW = ProbeConfig(
    folds=2,
    neighbours=(1, 5),
    temperatures=(0.1,),
    lrs=(1e-5, 1e-2),
    weight_decays=(0.0,),
    epochs=20,
)


def blobs(videos: int, seed: int, *, noise: float = 1.0, tokens: int = 3) -> LabelledFeatures:
    """Return three classes 4 apart, two views each, with channels of very different scales."""
    draws = torch.Generator().manual_seed(seed)
    labels = torch.arange(videos) % 3
    corners = 4 * torch.eye(3, 8)
    features = corners[labels][:, None, None] + noise * torch.randn(
        videos, 2, tokens, 8, generator=draws
    )
    return LabelledFeatures(features=features * torch.logspace(-3, 3, 8) + 5, labels=labels)


def hidden(videos: int, seed: int) -> LabelledFeatures:
    """Return two classes that differ in one of nine tokens.

    Channel 0 marks the token, the sign of its channel 1 is the class; other tokens are noise.
    """
    draws = torch.Generator().manual_seed(seed)
    labels = torch.arange(videos) % 2
    features = torch.randn(videos, 1, 9, 8, generator=draws)
    features[..., 0] = 0
    place = torch.randint(0, 9, (videos,), generator=draws)
    features[torch.arange(videos), 0, place, 0] = 4
    features[torch.arange(videos), 0, place, 1] = 2.0 * labels - 1
    return LabelledFeatures(features=features, labels=labels)


def accuracy(answers: torch.Tensor, videos: LabelledFeatures) -> float:
    return 100 * float((answers.argmax(dim=1) == videos.labels).float().mean())


@pytest.mark.parametrize("kind", KINDS)
def test_separate_classes_are_found(kind: Kind) -> None:
    train, test = blobs(90, seed=0), blobs(60, seed=1)
    answers, setting, sweep = run_probe(kind, train, test, FEW, num_classes=3, seed=0)
    assert torch.allclose(answers.sum(dim=1), torch.ones(60), atol=1e-5)
    assert accuracy(answers, test) > 95
    assert len(sweep) == 2 and max(row["accuracy"] for row in sweep) > 95
    assert setting in settings_of(kind, FEW)


def test_attention_finds_a_token_that_the_mean_hides() -> None:
    config = replace(FEW, lrs=(1e-2,), epochs=60)
    train, test = hidden(400, seed=0), hidden(200, seed=1)

    def score(kind: Kind) -> float:
        return accuracy(run_probe(kind, train, test, config, num_classes=2, seed=0)[0], test)

    attentive, linear = score("attentive"), score("linear")
    assert attentive > 90 and attentive > linear + 15, (attentive, linear)


@pytest.mark.parametrize("kind", KINDS)
def test_only_training_labels_choose_a_setting(kind: Kind) -> None:
    train, test = blobs(60, seed=0, noise=3), blobs(30, seed=1, noise=3)
    permuted = replace(test, labels=test.labels[torch.randperm(30)])
    first, second = (
        run_probe(kind, train, part, FEW, num_classes=3, seed=0) for part in (test, permuted)
    )
    assert first[1] == second[1] and first[2] == second[2]
    assert torch.equal(first[0], second[0])
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    other = replace(train, labels=train.labels[order])
    assert run_probe(kind, other, test, FEW, num_classes=3, seed=0)[2] != first[2]


def test_votes_are_weighted_by_similarity() -> None:
    angles = torch.tensor([0.0, 0.5, 2.0, -2.5])
    train = LabelledFeatures(
        features=torch.stack([angles.cos(), angles.sin()], dim=1)[:, None, None],
        labels=torch.tensor([0, 1, 1, 1]),
    )
    probe = run_probe("knn", train, train, replace(FEW, neighbours=(2,)), num_classes=2, seed=0)[0]
    standard = train.standardise(train).features[:, 0, 0]
    unit = standard / standard.norm(dim=1, keepdim=True)
    near = (unit @ unit[0]).topk(2)
    weights = torch.tensor([math.exp(value / 0.1) for value in near.values.tolist()])
    expected = (weights * (train.labels[near.indices] == 0)).sum() / weights.sum()
    assert float(probe[0, 0]) == pytest.approx(float(expected), abs=1e-5)


def test_the_first_of_the_best_settings_is_chosen() -> None:
    train = blobs(30, seed=0)

    def probe(_: LabelledFeatures, other: LabelledFeatures, setting: KnnSetting) -> torch.Tensor:
        right = torch.nn.functional.one_hot(other.labels, 3).float()
        return right if setting.neighbours >= 5 else right.roll(1, dims=1)

    candidates = settings_of("knn", ProbeConfig(neighbours=(1, 5, 7), temperatures=(0.1,)))
    chosen, sweep = choose_setting(probe, candidates, train, folds=3, seed=0)
    assert chosen == KnnSetting(neighbours=5, temperature=0.1)
    assert [row["accuracy"] for row in sweep] == [0, 100, 100]


def test_folds_are_disjoint_and_share_the_classes() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3)
    parts = split_folds(labels, 3, seed=0)
    assert sorted(torch.cat(parts).tolist()) == list(range(9))
    assert [labels[part].tolist() for part in parts] == [[0, 0, 1]] * 3
    with pytest.raises(
        ManifestError, match=r"2 training videos cannot be split into probe.folds=3; lower"
    ):
        split_folds(labels[:2], 3, seed=0)


class OtherDevice(torch.Tensor):
    """A tensor that behaves as one on another device: no operation takes it and a CPU tensor."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.cpu:
            return args[0].clone().as_subclass(torch.Tensor)
        found = [value for value in args if isinstance(value, torch.Tensor)]
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            found = [] if isinstance(args[0], cls) else found
        if any(isinstance(value, cls) for value in found) and not all(
            isinstance(value, cls) for value in found
        ):
            raise RuntimeError(f"{func.__name__}: tensors on two devices")
        return super().__torch_function__(func, types, args, kwargs)


def test_another_device_gets_the_same_folds_and_no_cpu_tensors() -> None:
    train, test = blobs(60, seed=0), blobs(30, seed=1)
    other_train, other_test = (
        LabelledFeatures(
            features=part.features.as_subclass(OtherDevice),
            labels=part.labels.as_subclass(OtherDevice),
        )
        for part in (train, test)
    )
    with pytest.raises(RuntimeError, match="two devices"):
        train.labels[other_train.labels]
    for part, same in zip(
        split_folds(other_train.labels, 3, seed=0), split_folds(train.labels, 3, seed=0)
    ):
        assert torch.equal(part, same)
    answers, setting, sweep = run_probe("knn", other_train, other_test, FEW, num_classes=3, seed=0)
    expected = run_probe("knn", train, test, FEW, num_classes=3, seed=0)
    assert torch.equal(answers.cpu(), expected[0]) and (setting, sweep) == expected[1:]


def test_heads_are_initialised_without_the_state_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_rng_state()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "get_rng_state", lambda device: pytest.fail("the state of a GPU was read")
    )
    train, test, config = blobs(30, seed=0), blobs(9, seed=1), replace(FEW, lrs=(1e-2,))
    run_probe("linear", train, test, config, num_classes=3, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_width_that_is_not_a_multiple_of_64() -> None:
    assert AttentiveHead(96, 5)(torch.randn(2, 7, 96)).shape == (2, 5)
    assert AttentiveHead(130, 5)(torch.randn(2, 7, 130)).shape == (2, 5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kinds": []}, r"probe.kinds=\[\]: must have at least one value"),
        ({"kinds": ["knn", "knn"]}, r"probe.kinds=\['knn', 'knn'\]: values must differ"),
        (
            {"kinds": ["svm"]},
            r"probe.kinds=\['svm'\]: unknown \['svm'\]; choose from knn, linear, attentive",
        ),
        ({"clips": 0}, "probe.clips=0: must be 1 or more"),
        ({"folds": 1}, "probe.folds=1: must be 2 or more"),
        ({"neighbours": [0]}, r"probe.neighbours=\[0\]: must be 1 or more"),
        ({"temperatures": [0.0]}, r"probe.temperatures=\[0.0\]: must be above 0"),
        ({"lrs": [math.nan]}, r"probe.lrs=\[nan\]: must be above 0"),
        ({"weight_decays": [-1.0]}, r"probe.weight_decays=\[-1.0\]: must be 0 or more"),
        ({"max_gigabytes": 0}, "probe.max_gigabytes=0: must be above 0"),
    ],
)
def test_invalid_values_are_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ProbeConfig(**changed)
