"""The masked autoencoder equals `hiera-transformer` with the same redrawn weights and mask."""

from __future__ import annotations

import pytest
import torch

from hiera_video.models.registry import MaeConfig, config_for, default_mae

CASES = [
    ("mae_hiera_tiny_16x224", (16, 96, 96)),
    ("mae_hiera_tiny_224", (224, 224)),
    ("mae_hiera_micro_16x32", (16, 32, 32)),
    pytest.param("mae_hiera_base_16x224", (16, 96, 96), marks=pytest.mark.slow),
    pytest.param("mae_hiera_base_224", (224, 224), marks=pytest.mark.slow),
    pytest.param("mae_hiera_base_16x224", (16, 224, 224), marks=pytest.mark.slow),
    pytest.param("mae_hiera_large_16x224", (16, 96, 96), marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "size"), CASES)
def test_equals_the_reference(name, size, twins, draw_clips, relative_difference):
    config = config_for(name, input_size=size)
    reference, ours = twins(config, default_mae(name))
    clips = draw_clips(config)
    keep = ours.draw_keep(1, torch.Generator().manual_seed(2))
    with torch.no_grad():
        output = ours(clips, keep=keep)
        latents = []
        reference.encoder_norm.register_forward_hook(lambda *call: latents.append(call[2]))
        loss, pred, target, their_keep = reference(clips, mask=keep)

    assert abs(output.loss - loss) <= 1e-6
    assert relative_difference(output.pred.flatten(0, 1), pred) <= 1e-5
    assert torch.equal(output.target.flatten(0, 1), target)
    assert torch.equal(output.keep, their_keep)
    assert relative_difference(output.latent, latents[0].flatten(1, -2)) <= 1e-5


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("mae_hiera_tiny_16x224", (16, 64, 64)),
        ("mae_hiera_tiny_224", (96, 96)),
        pytest.param("mae_hiera_base_16x224", (16, 64, 64), marks=pytest.mark.slow),
        pytest.param("mae_hiera_base_224", (96, 96), marks=pytest.mark.slow),
    ],
)
def test_gradients_equal_the_reference(name, size, twins, draw_clips):
    config = config_for(name, input_size=size)
    mae = MaeConfig(mask_ratio=0.75, decoder_depth=2)
    reference, ours = twins(config, mae)
    # float64 for the reason given in test_parity.py
    reference, ours = reference.double().train(), ours.double().train()
    clips = draw_clips(config).double()
    keep = ours.draw_keep(1, torch.Generator().manual_seed(2))
    ours(clips, keep=keep).loss.backward()
    reference(clips, mask=keep)[0].backward()
    theirs = dict(reference.named_parameters())
    for parameter_name, parameter in ours.named_parameters():
        expected = theirs[parameter_name].grad
        difference = (parameter.grad - expected).norm()
        # not closer: the loss itself is float32
        assert difference <= 1e-6 * expected.norm(), parameter_name
