"""The plain ViT equals torch's own encoder layers, and its masked autoencoder masks tubes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hiera_video.errors import ConfigError
from hiera_video.export.program import capture
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.models.macs import count_macs, count_parameters
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.registry import config_for, default_mae, list_names
from hiera_video.models.vit.config import VitConfig
from hiera_video.models.vit.models import sine_cosine_table
from hiera_video.models.weights.load import from_pretrained
from hiera_video.models.weights.save import save_pretrained

CLIP = (3, 16, 32, 32)


def run_layers(blocks: nn.ModuleList, heads: int, tokens: Tensor) -> Tensor:
    """Run torch's encoder layers with the weights of our blocks."""
    for block in blocks:
        layer = nn.TransformerEncoderLayer(
            tokens.shape[-1],
            heads,
            4 * tokens.shape[-1],
            dropout=0.0,
            activation="gelu",
            layer_norm_eps=1e-6,
            batch_first=True,
            norm_first=True,
        )
        ours = block.state_dict()
        layer.load_state_dict(
            {
                "self_attn.in_proj_weight": ours["attn.qkv.weight"],
                "self_attn.in_proj_bias": ours["attn.qkv.bias"],
                **{f"self_attn.out_proj.{k}": ours[f"attn.proj.{k}"] for k in ("weight", "bias")},
                **{
                    f"{theirs}.{k}": ours[f"{name}.{k}"]
                    for theirs, name in (
                        *(("linear1", "mlp.fc1"), ("linear2", "mlp.fc2")),
                        *(("norm1", "norm1"), ("norm2", "norm2")),
                    )
                    for k in ("weight", "bias")
                },
            }
        )
        tokens = layer.train()(tokens)  # in evaluation torch would take a fused path
    return tokens


def embed(model: nn.Module, clips: Tensor) -> Tensor:
    """Return tokens [B, 128, 64] in spatial order, by cutting cubes instead of convolving."""
    cubes = clips.unfold(2, 2, 2).unfold(3, 8, 8).unfold(4, 8, 8)  # b c t h w 2 8 8
    cubes = cubes.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(4).flatten(1, 3)
    kernel = model.get_parameter("patch_embed.proj.weight").flatten(1)
    return cubes @ kernel.T + model.get_parameter("patch_embed.proj.bias")


@pytest.fixture(scope="module")
def classifier() -> Hiera:
    torch.manual_seed(0)
    model = create_model("vit_micro_16x32", num_classes=5).eval()
    assert isinstance(model, Hiera)
    return model


def test_position_table():
    table = sine_cosine_table(3, 4)[0]
    expected = [
        [0.0, 1.0, 0.0, 1.0],
        [0.841471, 0.540302, 0.0099998, 0.99995],
        [0.909297, -0.416147, 0.0199987, 0.9998],
    ]
    torch.testing.assert_close(table, torch.tensor(expected), atol=1e-6, rtol=0)


@torch.no_grad()
def test_logits_equal_those_of_torchs_layers(classifier):
    clips = torch.randn(2, *CLIP)
    tokens = embed(classifier, clips) + sine_cosine_table(128, 64)
    features = run_layers(classifier.blocks, 2, tokens)
    expected = classifier.head.projection(classifier.norm(features.mean(dim=1)))
    assert expected.std() > 0.05
    torch.testing.assert_close(classifier(clips), expected, atol=1e-5, rtol=0)
    grid = classifier.forward_features(clips)
    assert grid.shape == (2, 8, 4, 4, 64)
    torch.testing.assert_close(grid.flatten(1, 3), features, atol=1e-5, rtol=0)


@torch.no_grad()
def test_predictions_equal_those_of_torchs_layers():
    torch.manual_seed(0)
    mae = create_model("mae_vit_micro_16x32")
    assert isinstance(mae, MaskedAutoencoderHiera)
    clips, keep = torch.randn(2, *CLIP), mae.draw_keep(2)
    out = mae(clips, keep=keep)
    visible = (embed(mae, clips) + sine_cosine_table(128, 64))[keep].view(2, 32, 64)
    latent = mae.decoder_embed(mae.encoder_norm(run_layers(mae.blocks, 2, visible)))
    tokens = mae.mask_token.expand(2, 128, 32).clone()
    tokens[keep] = latent.flatten(0, 1)
    decoded = run_layers(mae.decoder_blocks, 1, tokens + sine_cosine_table(128, 32))
    expected = mae.decoder_pred(mae.decoder_norm(decoded))[~keep].view(2, 96, 384)
    torch.testing.assert_close(out.pred, expected, atol=1e-5, rtol=0)


def test_masks_are_tubes_and_targets_whole_cubes():
    mae = create_model("mae_vit_micro_16x32")
    out = mae(torch.randn(2, *CLIP))
    frames = out.keep.view(2, 8, 16)
    assert torch.equal(frames, frames[:, :1].expand(-1, 8, -1))
    assert frames[:, 0].sum(dim=1).tolist() == [4, 4]  # 12 of 16 places are hidden
    assert out.pred.shape == out.target.shape == (2, 96, 2 * 8 * 8 * 3)
    assert torch.equal(out.masked, ~out.keep)
    out.loss.backward()
    assert all(parameter.grad is not None for parameter in mae.parameters())
    large = create_model("mae_vit_tiny_16x224", pretrained="none")
    assert large.num_visible_units() == 160  # VideoMAE: 20 of 196 places in 8 frames


def test_hidden_tokens_change_nothing():
    mae = create_model("mae_vit_micro_16x32").eval()
    clips, keep = torch.randn(1, *CLIP), mae.draw_keep(1)
    hidden = ~keep.view(8, 4, 4).repeat_interleave(2, 0).repeat_interleave(8, 1)
    hidden = hidden.repeat_interleave(8, 2)
    others = torch.where(hidden, torch.randn_like(clips), clips)
    assert torch.equal(mae.encode_visible(clips, keep), mae.encode_visible(others, keep))


def test_fixed_positions_are_in_no_checkpoint(classifier):
    mae = create_model("mae_vit_micro_16x32")
    for model in (classifier, mae):
        assert not [name for name in model.state_dict() if "pos_embed" in name]
    assert classifier.no_weight_decay() == set()
    assert mae.no_weight_decay() == {"mask_token"}
    assert classifier.layer_id("patch_embed.proj.weight") == 0
    assert classifier.layer_id("blocks.3.norm1.weight") == 4


def test_another_input_size_has_a_table_of_its_own(classifier, tmp_path: Path):
    save_pretrained(classifier, tmp_path)
    longer = create_model(
        "vit_micro_16x32", pretrained=str(tmp_path), input_size=(32, 48, 48)
    ).eval()
    assert torch.equal(longer.pos_embed, sine_cosine_table(16 * 6 * 6, 64))
    assert longer(torch.zeros(1, 3, 32, 48, 48)).shape == (1, 5)


@torch.no_grad()
def test_saved_folders_load_bit_for_bit(classifier, tmp_path: Path):
    clips = torch.randn(1, *CLIP)
    again = from_pretrained(save_pretrained(classifier, tmp_path / "classifier"))
    assert again.config == classifier.config
    assert torch.equal(again(clips), classifier(clips))
    card = (tmp_path / "classifier" / "README.md").read_text()
    assert "hiera-transformer" not in card
    mae = create_model("mae_vit_micro_16x32").eval()
    copy = from_pretrained(save_pretrained(mae, tmp_path / "mae"))
    assert isinstance(copy, MaskedAutoencoderHiera) and copy.mae == mae.mae
    keep = mae.draw_keep(1)
    assert torch.equal(copy(clips, keep=keep).pred, mae(clips, keep=keep).pred)


def test_an_autoencoder_initialises_a_classifier(tmp_path: Path):
    mae = create_model("mae_vit_micro_16x32")
    save_pretrained(mae, tmp_path)
    model = create_model("vit_micro_16x32", pretrained=str(tmp_path), num_classes=5)
    for name, value in mae.state_dict().items():
        if name.startswith(("blocks.", "patch_embed.")):
            assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.slow
@torch.no_grad()
def test_the_model_is_exported(classifier):
    program, clips = capture(classifier, "logits").module(), torch.randn(3, *CLIP)
    torch.testing.assert_close(program(clips), classifier(clips), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        # published by VideoMAE: 22 M and 57 G, 87 M and 180 G, 305 M and 597 G
        ("small", 22_038_544, 56_878_061_568),
        ("base", 86_544_016, 180_344_893_440),
        ("large", 304_295_312, 596_833_091_584),
    ],
)
def test_parameters_and_macs_beside_the_published_ones(name, parameters, macs):
    with torch.device("meta"):
        model = create_model(f"vit_{name}_16x224", pretrained="none", num_classes=400)
    assert (count_parameters(model), count_macs(model, (3, 16, 224, 224))) == (parameters, macs)


def test_names_and_decoders():
    st_sizes = ("base_16x224", "large_16x224", "micro_16x32")
    assert [name for name in list_names() if "vit_" in name and "16x" in name] == [
        *(f"vit_{size}_16x224" for size in ("tiny", "small", "base", "large", "huge")),
        *("vit_micro_16x32", *(f"vit_st_{size}" for size in st_sizes)),
        *(f"mae_vit_{size}_16x224" for size in ("tiny", "small", "base", "large", "huge")),
        *("mae_vit_micro_16x32", *(f"mae_vit_st_{size}" for size in st_sizes)),
    ]
    mae = default_mae("mae_vit_base_16x224")
    assert (mae.decoder_embed_dim, mae.decoder_depth, mae.decoder_num_heads) == (384, 4, 6)
    assert (mae.mask_ratio, mae.masking, mae.target_frames) == (0.9, "tube", "all")
    assert default_mae("mae_vit_large_16x224").decoder_depth == 12
    assert config_for("vit_base_16x224").token_grid == (8, 14, 14)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {},
            r"stages=\[2, 3, 16, 3\], mask_unit_attn=\[True, True, False, False\]: a plain ViT has "
            r"one stage, which attends over the clip",
        ),
        (
            {"stages": (2,), "q_pool": 0, "mask_unit_attn": (False,)},
            r"fixed_positions: one table for space and time; set sep_pos_embed=False",
        ),
    ],
)
def test_wrong_configurations_are_rejected(changes, words):
    with pytest.raises(ConfigError, match=words):
        VitConfig(**changes)
