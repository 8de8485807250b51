"""The masked autoencoder against `hiera-transformer`, same redrawn weights, same mask."""

from __future__ import annotations

import pytest
import torch

from hiera_video.models.registry import MaeConfig, config_for, default_mae

CASES = [
    ("mae_hiera_base_16x224", (16, 96, 96)),
    ("mae_hiera_large_16x224", (16, 96, 96)),
    ("mae_hiera_base_16x224", (16, 224, 224)),
    ("mae_hiera_base_224", (224, 224)),
    ("mae_hiera_micro_16x32", (16, 32, 32)),
]


@pytest.mark.parametrize(("name", "size"), CASES)
def test_equals_the_oracle(name, size, twins, draw_clips, worst):
    config = config_for(name, input_size=size)
    oracle, ours = twins(config, default_mae(name))
    clips = draw_clips(config)
    keep = ours.draw_keep(1, torch.Generator().manual_seed(2))
    with torch.no_grad():
        output = ours(clips, keep=keep)
        latents = []
        oracle.encoder_norm.register_forward_hook(lambda *call: latents.append(call[2]))
        loss, pred, target, their_keep = oracle(clips, mask=keep)

    assert abs(output.loss - loss) <= 1e-6
    assert worst(output.pred.flatten(0, 1), pred) <= 1e-5
    assert torch.equal(output.target.flatten(0, 1), target)
    assert torch.equal(output.keep, their_keep)
    assert worst(output.latent, latents[0].flatten(1, -2)) <= 1e-5


@pytest.mark.parametrize(
    ("name", "size"), [("mae_hiera_base_16x224", (16, 64, 64)), ("mae_hiera_base_224", (96, 96))]
)
def test_gradients_equal_the_oracle(name, size, twins, draw_clips):
    config = config_for(name, input_size=size)
    mae = MaeConfig(mask_ratio=0.75, decoder_depth=2)
    oracle, ours = twins(config, mae)
    oracle, ours = (
        oracle.double().train(),
        ours.double().train(),
    )  # float64 for the reason given in test_parity
    clips = draw_clips(config).double()
    keep = ours.draw_keep(1, torch.Generator().manual_seed(2))
    ours(clips, keep=keep).loss.backward()
    oracle(clips, mask=keep)[0].backward()
    theirs = dict(oracle.named_parameters())
    for parameter_name, parameter in ours.named_parameters():
        reference = theirs[parameter_name].grad
        difference = (parameter.grad - reference).norm()
        assert difference <= 1e-6 * reference.norm(), (
            parameter_name
        )  # not closer: the loss itself is float32
