"""Every rung: Hiera at the foot, masked training without leaks, saving and loading."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hiera_video as hv
from hiera_video.errors import CheckpointError, ConfigError
from hiera_video.explanations.attention import blocks_of
from hiera_video.explanations.evidence import class_evidence
from hiera_video.models.build import build_model
from hiera_video.models.mvit.leaks import stage_leaks
from hiera_video.models.registry import config_for, default_mae, name_of
from hiera_video.models.weights.load import from_pretrained
from hiera_video.models.weights.save import save_pretrained

RUNGS = ("mvitv2", "ladder_a", "ladder_b", "ladder_c", "ladder_d", "ladder_e", "ladder_f")
OVERLAPPING = RUNGS[:4]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@torch.no_grad()
def redraw(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def draw(model: nn.Module, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, *model.config.input_size)


@pytest.mark.parametrize("prefix", ["", "mae_"])
def test_rung_f_is_hiera_bit_for_bit(prefix):
    hiera = redraw(hv.create_model(f"{prefix}hiera_micro_16x32", drop_path_rate=0.5))
    rung = hv.create_model(f"{prefix}ladder_f_micro_16x32", drop_path_rate=0.5)
    rung.load_state_dict(hiera.state_dict(), strict=True)
    clips, draws = draw(hiera), torch.rand(2, 4, 2)
    keep = torch.rand(2, 32).argsort(1) < 8
    options = {"keep": keep, "decoder_draws": torch.rand(2, 128)} if prefix else {}
    losses = []
    for model in (hiera, rung):
        output = model(clips, path_draws=draws, **options)
        losses.append(output.loss if prefix else output.square().sum())
        losses[-1].backward()
    assert torch.equal(*losses)
    for (name, one), other in zip(hiera.named_parameters(), rung.parameters()):
        assert torch.equal(one.grad, other.grad), name


@torch.no_grad()
def test_rung_f_is_hiera_of_images():
    size = (64, 64)
    hiera = redraw(hv.create_model("hiera_tiny_224", input_size=size)).eval()
    rung = hv.create_model("ladder_f_tiny_224", input_size=size).eval()
    rung.load_state_dict(hiera.state_dict(), strict=True)
    images = draw(hiera)
    assert torch.equal(hiera(images), rung(images))


@pytest.mark.parametrize("rung", RUNGS)
def test_masked_training_does_not_see_hidden_pixels(rung):
    mae = redraw(hv.create_model(f"mae_{rung}_micro_16x32"))
    clips = draw(mae)
    keep = torch.rand(2, 32).argsort(1) < 8
    pixels = keep.view(2, 1, 8, 2, 2)
    for axis, factor in ((2, 2), (3, 16), (4, 16)):
        pixels = pixels.repeat_interleave(factor, dim=axis)
    output = mae(clips, keep=keep)
    output.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in mae.parameters())
    other = mae.eval()(clips.masked_fill(~pixels, float("nan")), keep=keep)
    assert torch.equal(mae(clips, keep=keep).latent, other.latent)


@pytest.mark.parametrize("rung", RUNGS)
@torch.no_grad()
def test_visible_units_alone_are_as_in_the_whole_clip(rung):
    """Deleted units, and units in place whose keys are ignored, give the same visible tokens."""
    mae = redraw(hv.create_model(f"mae_{rung}_micro_16x32")).eval()
    clips, keep = draw(mae), torch.rand(2, 32).argsort(1) < 8
    alone = mae.encode(clips, keep)
    tokens = torch.zeros(2, 32, 16, 64)
    tokens[keep] = mae.embed(clips, keep, 8).flatten(0, 1)
    dense, _ = mae.run_blocks(tokens, torch.arange(32)[None], visible=keep)
    for one, other in zip(alone, dense):
        torch.testing.assert_close(one.flatten(0, 1), other[keep], atol=2e-5, rtol=1e-4)


def leaks_of(config) -> list[float]:
    model = redraw(build_model(config)).eval()
    keep = torch.rand(2, config.num_units).argsort(1) < config.num_units // 2
    return stage_leaks(model, draw(model), keep)


@pytest.mark.parametrize("rung", RUNGS)
def test_nothing_leaks_at_any_rung(rung):
    config = config_for(f"{rung}_micro_16x32")
    separate = rung in OVERLAPPING
    assert leaks_of(replace(config, separate_units=separate)) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("rung", OVERLAPPING)
def test_kernels_that_overlap_leak_unless_units_are_separated(rung):
    config = replace(config_for(f"{rung}_micro_16x32"), separate_units=False)
    assert min(leaks_of(config)) > 1e-3


def test_windows_leak_after_the_first_pooling_and_mask_units_do_not():
    units = replace(config_for("ladder_f_micro_16x32"), mask_unit_attn=(True, True, False))
    assert leaks_of(units) == [0.0, 0.0, 0.0]
    first, *later = leaks_of(replace(units, window=True))
    assert first == 0.0 and min(later) > 1e-3


@torch.no_grad()
def test_windows_equal_units_where_units_are_windows():
    """One pooling less: without pooling, a window is a mask unit, and padding changes nothing."""
    units = replace(config_for("ladder_f_micro_16x32", num_classes=5), q_pool=0)
    units = replace(units, mask_unit_attn=(True, True, False))
    model = redraw(build_model(units)).eval()
    twin = build_model(replace(units, window=True)).eval()
    twin.load_state_dict(model.state_dict(), strict=True)
    clips = draw(model)
    torch.testing.assert_close(twin(clips), model(clips), atol=1e-4, rtol=1e-5)


def test_windows_over_the_edge_attend_what_is_there():
    """On 12×12 tokens after a pooling, windows of 8×8 are 8×8, 8×4, 4×8 and 4×4 tokens."""
    config = config_for("ladder_window_tiny_224", input_size=(96, 96))
    config = replace(config, stages=(1, 2), q_pool=1)
    model = build_model(config)
    windows = model.blocks[2].attn.windows
    assert (windows.grid, windows.key_window) == ((12, 12), (8, 8))
    row = torch.arange(12) // 8
    of_token = model.order.unroll((2 * row[:, None] + row)[None, None], level=1).flatten()
    assert of_token.bincount().tolist() == [64, 32, 32, 16]
    query, key, value = torch.randn(3, 2, 144, 3, 8)
    together = of_token[:, None] == of_token
    query_t, key_t, value_t = (part.transpose(1, 2) for part in (query, key, value))
    expected = F.scaled_dot_product_attention(query_t, key_t, value_t, attn_mask=together)
    torch.testing.assert_close(windows.attend(query, key, value), expected.transpose(1, 2))


def test_models_that_need_every_unit_refuse_masks():
    keep = torch.arange(32).repeat(1, 1) < 8
    model = hv.create_model("mvitv2_micro_16x32", num_classes=5)
    with pytest.raises(
        ConfigError,
        match=r"keep: this model cannot leave units out, because its kernels overlap; masked "
        r"models are named mae_mvitv2_… and mae_ladder_…",
    ):
        model.encode(draw(model, 1), keep)
    window = build_model(replace(config_for("ladder_f_micro_16x32"), window=True))
    with pytest.raises(ConfigError, match=r"because a window spans several of them"):
        window.forward_features(draw(window, 1), keep)


@pytest.mark.parametrize("name", ["mvitv2_micro_16x32", "ladder_c_micro_16x32"])
@torch.no_grad()
def test_a_saved_rung_is_rebuilt(tmp_path, name):
    model = redraw(hv.create_model(name, num_classes=5)).eval()
    folder = save_pretrained(model, tmp_path / "rung", class_names=list("abcde"))
    rebuilt = from_pretrained(folder)
    clips = draw(model)
    assert rebuilt.config == model.config and name_of(rebuilt.config) == name
    assert torch.equal(rebuilt(clips), model(clips))
    assert hv.load(str(folder)).class_names == tuple("abcde")
    assert "also loads in" not in (folder / "README.md").read_text()
    with pytest.raises(
        CheckpointError,
        match=r"library='transformers': has Hiera alone; save mvitv2_…, ladder_… and vit_… witho",
    ):
        save_pretrained(model, tmp_path / "other", library="transformers")


def test_a_saved_autoencoder_is_rebuilt(tmp_path):
    mae = hv.create_model("mae_ladder_a_micro_16x32")
    rebuilt = from_pretrained(save_pretrained(mae, tmp_path / "rung"))
    assert type(rebuilt) is type(mae) and rebuilt.config == mae.config
    assert rebuilt.mae == default_mae("mae_ladder_a_micro_16x32")


@pytest.mark.parametrize("rung", ["mvitv2", "ladder_b"])
def test_half_precision(rung):
    mae = redraw(hv.create_model(f"mae_{rung}_micro_16x32"))
    clips, keep = draw(mae), torch.rand(2, 32).argsort(1) < 8
    loss = mae(clips, keep=keep).loss
    with torch.autocast("cpu", torch.bfloat16):
        output = mae(clips, keep=keep)
    output.loss.backward()
    assert float((output.loss - loss).detach()) == pytest.approx(0, abs=0.05)
    half = hv.create_model(f"{rung}_micro_16x32", num_classes=5).bfloat16().eval()
    assert half(clips.bfloat16()).dtype == torch.bfloat16


def test_explanations_of_hieras_head_and_attention_refuse_other_ones():
    model = hv.create_model("mvitv2_micro_16x32", num_classes=5).eval()
    with pytest.raises(ConfigError, match=r"LadderClassifier: has no pooled logits to explain"):
        class_evidence(model, draw(model))
    with pytest.raises(
        ConfigError,
        match=r"LadderClassifier: its blocks are not Hiera's, so their attention cannot be shown; "
        r"give a Hiera",
    ):
        blocks_of(model)


@pytest.mark.parametrize("rung", ["mvitv2", "ladder_b"])
def test_recomputed_blocks_have_equal_gradients(rung):
    model = redraw(hv.create_model(f"mae_{rung}_micro_16x32"))
    clips, keep = draw(model), torch.rand(2, 32).argsort(1) < 8
    gradients = []
    for model.checkpointing in (False, True):
        model.zero_grad()
        model(clips, keep=keep).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients))
