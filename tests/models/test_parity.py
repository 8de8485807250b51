"""The encoder against `hiera-transformer`, weights redrawn."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from hiera_video.models.hiera import Hiera
from hiera_video.models.registry import config_for

CASES = [
    (f"hiera_{size}_16x224", (16, 96, 96))
    for size in ("tiny", "small", "base", "base_plus", "large", "huge")
]
CASES += [
    ("hiera_base_16x224", (16, 224, 224)),
    ("hiera_base_224", (224, 224)),
    ("hiera_micro_16x32", (16, 32, 32)),
]


@pytest.mark.parametrize(("name", "size"), CASES)
def test_equals_the_oracle(name, size, twins, draw_clips, worst):
    config = config_for(name, input_size=size)
    oracle, ours = twins(config)
    clips = draw_clips(config)
    keep = (
        torch.rand(1, config.num_units, generator=torch.Generator().manual_seed(1)).argsort()
        < config.num_units // 3
    )
    outputs = []
    with torch.no_grad():
        with mock.patch.object(ours, "encode", wraps=ours.encode) as spy:
            spy.side_effect = lambda *args, **options: (
                outputs.extend(Hiera.encode(ours, *args, **options)) or outputs
            )
            logits = ours(clips)  # one pass for answer and maps: the big sizes are slow
            spy.side_effect = lambda *args, **options: outputs
            maps = ours.forward_intermediates(clips)
        theirs, their_maps = oracle(clips, return_intermediates=True)
        kept_maps = ours.forward_intermediates(clips, keep)
        _, their_kept_maps = oracle(clips, keep, return_intermediates=True)

    assert (logits.softmax(-1) - theirs).abs().max() <= 1e-6
    assert (
        theirs.max() - theirs.min() > 5e-4
    )  # the answer is not flat: equal answers mean something
    assert [tuple(map_.shape) for map_ in maps] == [
        (1, *stage.grid, stage.dim) for stage in ours.stages
    ]
    for map_, their_map in zip(maps + kept_maps, their_maps + their_kept_maps, strict=True):
        assert map_.shape == their_map.shape
        assert worst(map_, their_map) <= 1e-5


def test_gradients_equal_the_oracle(twins, draw_clips):
    # In float64: in float32 a near tie in a max-pooling falls one way here and the other way there, and a tensor's
    # gradient then differs by up to 6e-3; in float64 the two agree to 3e-15, which proves the arithmetic.
    config = config_for("hiera_tiny_16x224", input_size=(16, 64, 64))
    oracle, ours = twins(config)
    oracle, ours = oracle.double(), ours.double()
    clips = draw_clips(config, batch=2).double()
    oracle.train()(clips).square().sum().backward()
    ours.train()(clips).square().sum().backward()
    theirs = dict(oracle.named_parameters())
    for name, parameter in ours.named_parameters():
        difference = (parameter.grad - theirs[name].grad).norm() / theirs[name].grad.norm()
        assert difference <= 1e-10, name
