from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from hiera_video.errors import ConfigError, InputSizeError
from hiera_video.models.factory import create_model
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.registry import MaeConfig, config_for
from hiera_video.models.weights.load import from_pretrained
from hiera_video.models.weights.save import save_pretrained

MICRO = MaeConfig(decoder_embed_dim=64, decoder_depth=1, decoder_num_heads=2)
OPTIONS = [
    {},
    {"target_frames": "all"},
    {"target": "hog"},
    {"target": "hog", "target_frames": "all"},
    {"decoder_tokens": "running_cell"},
    {"decoder_tokens": "random"},
    {"masking": "tube", "mask_ratio": 0.75},
    {"masking": "future", "mask_ratio": 0.5},
    {"multi_scale": False},
]


def build(**changes):
    torch.manual_seed(0)
    return create_model("mae_hiera_micro_16x32", mae=replace(MICRO, **changes), drop_path_rate=0.1)


@pytest.fixture
def clips():
    return torch.randn(2, 3, 16, 32, 32, generator=torch.Generator().manual_seed(0))


def test_shapes(clips):
    output = build()(clips)
    assert output.loss.shape == ()
    assert output.pred.shape == output.target.shape == (2, 29 * 4, 8 * 8 * 3)
    assert output.keep.sum(1).tolist() == [3, 3]
    assert output.masked.sum(1).tolist() == [29 * 4] * 2
    assert output.latent.shape == (2, 3 * 4, 256)
    assert not output.latent.requires_grad


def test_hidden_pixels_change_only_the_target(clips):
    model = build().eval()
    keep = model.draw_keep(2)
    with torch.no_grad():
        before = model(clips, keep=keep)
        hidden = ~keep.view(2, 1, 8, 1, 2, 1, 2, 1)
        noise = torch.randn(2, 3, 8, 2, 2, 16, 2, 16) * hidden
        after = model(clips + noise.reshape(clips.shape), keep=keep)
    assert torch.equal(before.pred, after.pred)
    assert not torch.equal(before.target, after.target)


COMPILED = [  # every branch of the step in three compilations
    pytest.param({}, id="paper"),
    pytest.param(
        {
            "target": "hog",
            "target_frames": "all",
            "decoder_tokens": "running_cell",
            "masking": "tube",
            "mask_ratio": 0.75,
        },
        id="hog",
        marks=pytest.mark.slow,
    ),
    pytest.param(
        {"target_frames": "all", "decoder_tokens": "random"}, id="random", marks=pytest.mark.slow
    ),
]


@pytest.mark.parametrize("options", COMPILED)
def test_no_graph_break(clips, options):
    """`fullgraph=True` raises at a graph break; a data-dependent shape would be one."""
    model = build(**options)
    torch._dynamo.reset()
    step = torch.compile(model, backend="eager", fullgraph=True)
    draws, keep = torch.rand(2, 4, 2), model.draw_keep(2)
    decoder_draws = torch.rand(2, 128)
    compiled = step(clips, keep=keep, path_draws=draws, decoder_draws=decoder_draws)
    eager = model(clips, keep=keep, path_draws=draws, decoder_draws=decoder_draws)
    assert torch.allclose(compiled.loss, eager.loss)
    compiled.loss.backward()
    if not options:
        keep[1] = True  # the counts of visible units are checked on the device
        with pytest.raises(RuntimeError, match="another number of units than the "):
            step(clips, keep=keep, path_draws=draws, decoder_draws=decoder_draws)
        assert torch.isfinite(step(clips).loss)  # masks drawn inside


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_learns(clips, options):
    """A few steps on one batch reduce the loss, and every parameter has a gradient."""
    model = build(**options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    keep, decoder_draws = model.draw_keep(2), torch.rand(2, 128)
    losses = []
    for _ in range(12):
        output = model(clips, keep=keep, decoder_draws=decoder_draws)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(float(output.loss.detach()))
    assert losses[-1] < 0.97 * losses[0]
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("share", [0.25, 0.5])
@pytest.mark.parametrize("tokens", ["running_cell", "random"])
def test_decoder_predicts_a_share_of_the_hidden_tokens(clips, tokens, share):
    model = build(decoder_tokens=tokens, decoder_share=share)
    whole = build()
    output = model(clips)
    everything = whole(clips, keep=output.keep)
    assert output.masked.sum(1).tolist() == [int(29 * 4 * share)] * 2
    assert not (output.masked & ~everything.masked).any()  # a part of the hidden tokens
    rows = [everything.target[b][output.masked[b][everything.masked[b]]] for b in range(2)]
    assert torch.equal(output.target, torch.stack(rows))


def test_decoding_all_tokens_as_a_subset_is_the_plain_decoder(clips):
    plain, subset = build().eval(), build(decoder_tokens="random", decoder_share=1.0).eval()
    keep = plain.draw_keep(2)
    with torch.no_grad():
        assert torch.allclose(
            plain(clips, keep=keep).pred, subset(clips, keep=keep).pred, atol=1e-5
        )


def test_draws_apply_per_sample(clips):
    model = build(decoder_tokens="random").train()
    keep, draws, decoder_draws = model.draw_keep(2), torch.rand(2, 4, 2), torch.rand(2, 128)
    with torch.no_grad():
        whole = model(clips, keep=keep, path_draws=draws, decoder_draws=decoder_draws)
        second = model(
            clips[1:], keep=keep[1:], path_draws=draws[1:], decoder_draws=decoder_draws[1:]
        )
    assert torch.equal(whole.masked[1:], second.masked)
    assert torch.allclose(whole.pred[1:], second.pred, atol=1e-5)


def test_pictures_keep_visible_tokens(clips):
    model = build()
    output = model(clips)
    original, visible, filled = model.pictures(clips, output)
    assert original.shape == visible.shape == filled.shape == (2, 3, 8, 32, 32)
    assert (visible != 0).float().mean() == pytest.approx(3 / 32)
    assert torch.equal(filled[visible != 0], original[visible != 0])
    assert not torch.allclose(filled, original, atol=0.1)


def test_checkpointing_gives_the_same_gradients(clips):
    gradients = []
    for checkpointing in (False, True):
        model = build()
        model.checkpointing = checkpointing
        keep = model.draw_keep(2, torch.Generator().manual_seed(3))
        model(clips, keep=keep, path_draws=torch.full((2, 4, 2), 0.05)).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(itertools.starmap(torch.equal, zip(*gradients, strict=True)))


def test_image_autoencoder():
    output = create_model("mae_hiera_tiny_224", input_size=(96, 96))(torch.randn(1, 3, 96, 96))
    assert output.keep.sum() == 3  # 40 % of 9
    assert output.pred.shape == (1, 24, 768)


def test_wrong_masks_and_ratios_are_rejected(clips):
    model = build()
    with pytest.raises(ConfigError, match=r"mask_ratio=1.0: must be above 0 and below 1"):
        model(clips, mask_ratio=1.0)
    with pytest.raises(ConfigError, match=r"mask_ratio=0.99: keeps 0 of 32 units"):
        model(clips, mask_ratio=0.99)
    with pytest.raises(
        InputSizeError, match=r"expected torch.bool \[2, 32\] \(clips x mask units\)"
    ):
        model(clips, keep=torch.ones(2, 31, dtype=torch.bool))
    unequal = torch.arange(32).expand(2, 32) < torch.tensor([[3], [4]])
    with pytest.raises(
        InputSizeError, match="between 3 and 4 units a clip; every clip must show the same number"
    ):
        model(clips, keep=unequal)
    with pytest.raises(InputSizeError, match="keep hides no unit; at least one must be hidden"):
        model(clips, keep=torch.ones(2, 32, dtype=torch.bool))
    with pytest.raises(
        InputSizeError,
        match=r"keep shows 3 units a clip but mask_ratio=0.5 means 16; pass one of the two",
    ):
        model(clips, keep=model.draw_keep(2), mask_ratio=0.5)
    with pytest.raises(
        InputSizeError, match=r"decoder_draws is \[2, 5\]; expected \[2, 128\]: clips x tokens"
    ):
        build(decoder_tokens="random")(clips, decoder_draws=torch.rand(2, 5))


def test_constructor_rejects_a_ratio_that_leaves_nothing_visible():
    with pytest.raises(ConfigError, match=r"mask_ratio=0.9: keeps 0 of 4 units"):
        MaskedAutoencoderHiera(config_for("mae_hiera_micro_16x32", input_size=(2, 32, 32)), MICRO)
    with pytest.raises(ConfigError, match="mae was given, but hiera_micro_16x32 is a classifier"):
        create_model("hiera_micro_16x32", mae=MICRO)


def test_the_last_stage_alone_is_decoded(clips, tmp_path):
    fused, single = build().eval(), build(multi_scale=False).eval()
    names = {name for name, _ in fused.named_parameters()}
    heads = {f"multi_scale_fusion_heads.0.{kind}" for kind in ("weight", "bias")}
    assert names - {name for name, _ in single.named_parameters()} == heads
    single.load_state_dict(fused.state_dict(), strict=False)
    keep = single.draw_keep(2)
    with torch.no_grad():
        fused.multi_scale_fusion_heads[0].weight.zero_()
        fused.multi_scale_fusion_heads[0].bias.zero_()
        output = single(clips, keep=keep)
        assert torch.equal(output.pred, fused(clips, keep=keep).pred)
        again = from_pretrained(save_pretrained(single, tmp_path))
        assert again.mae == single.mae
        assert torch.equal(again(clips, keep=keep).pred, output.pred)
    assert "also loads in" not in (tmp_path / "README.md").read_text()
