"""The encoder equals `hiera-transformer` with the same redrawn weights."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from hiera_video.models.hiera import Hiera
from hiera_video.models.registry import config_for

CASES = [
    *((f"hiera_{size}_16x224", (16, 96, 96)) for size in ("tiny", "base")),
    ("hiera_tiny_224", (224, 224)),
    ("hiera_micro_16x32", (16, 32, 32)),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (
            ("hiera_base_16x224", (16, 224, 224)),
            ("hiera_base_224", (224, 224)),
            ("hiera_small_16x224", (16, 96, 96)),
            ("hiera_base_plus_16x224", (16, 96, 96)),
            ("hiera_large_16x224", (16, 96, 96)),
            ("hiera_huge_16x224", (16, 96, 96)),
        )
    ),
]


@pytest.mark.parametrize(("name", "size"), CASES)
def test_equals_the_reference(name, size, twins, draw_clips, relative_difference):
    config = config_for(name, input_size=size)
    reference, ours = twins(config)
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
            logits = ours(clips)  # one forward pass for logits and maps: large sizes are slow
            spy.side_effect = lambda *args, **options: outputs
            maps = ours.forward_intermediates(clips)
        theirs, their_maps = reference(clips, return_intermediates=True)
        kept_maps = ours.forward_intermediates(clips, keep)
        _, their_kept_maps = reference(clips, keep, return_intermediates=True)

    assert (logits.softmax(-1) - theirs).abs().max() <= 1e-6
    assert theirs.max() - theirs.min() > 5e-4  # not uniform, so equality means something
    assert [tuple(map_.shape) for map_ in maps] == [
        (1, *stage.grid, stage.dim) for stage in ours.stages
    ]
    for map_, their_map in zip(maps + kept_maps, their_maps + their_kept_maps, strict=True):
        assert map_.shape == their_map.shape
        assert relative_difference(map_, their_map) <= 1e-5


def test_gradients_equal_the_reference(twins, draw_clips):
    # In float32, a near tie in a max-pooling may be decided differently, and a parameter's gradient
    # then differs by up to 6e-3. In float64 both agree to 3e-15, which proves the arithmetic.
    config = config_for("hiera_tiny_16x224", input_size=(16, 64, 64))
    reference, ours = twins(config)
    reference, ours = reference.double(), ours.double()
    clips = draw_clips(config, batch=2).double()
    reference.train()(clips).square().sum().backward()
    ours.train()(clips).square().sum().backward()
    theirs = dict(reference.named_parameters())
    for name, parameter in ours.named_parameters():
        difference = (parameter.grad - theirs[name].grad).norm() / theirs[name].grad.norm()
        assert difference <= 1e-10, name
