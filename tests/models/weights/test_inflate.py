"""Image weights and position embeddings of other input sizes load into video models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from hiera_video.errors import CheckpointError
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.models.layout import HieraConfig
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.registry import MaeConfig, config_for
from hiera_video.models.weights.convert import adapt_state_dict
from hiera_video.models.weights.inflate import State, inflate_image_weights, resize_table


def micro_image(name: str) -> HieraConfig:
    """Return the micro configuration for images."""
    video = config_for(name)
    flat = {key: getattr(video, key)[1:] for key in ("input_size", "q_stride", "mask_unit_size")}
    patches = {
        key: getattr(video, key)[1:] for key in ("patch_kernel", "patch_stride", "patch_padding")
    }
    return replace(video, **flat, **patches, sep_pos_embed=False)


def state_of(name: str, **options: tuple[int, ...]) -> State:
    return create_model(name, **options).state_dict()


def test_resize_table_keeps_constants_and_lines():
    line = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 3, 2).reshape(1, 36, 2)
    longer = resize_table(line, (4, 3, 3), (8, 6, 5)).view(8, 6, 5, 2)
    assert longer[:, 0, 0, 0].tolist() == pytest.approx([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    assert torch.allclose(longer, longer[:, :1, :1].expand_as(longer), atol=1e-5)
    assert torch.equal(resize_table(line, (4, 3, 3), (4, 3, 3)), line)


def test_resize_table_is_bicubic_in_space_and_linear_in_time():
    table = torch.randn(1, 2 * 3 * 5, 4, generator=torch.Generator().manual_seed(0))
    frames = rearrange(table, "1 (t h w) c -> t c h w", t=2, h=3)
    larger = F.interpolate(frames, size=(6, 7), mode="bicubic", align_corners=False)
    expected = torch.stack(
        [larger[0], 0.75 * larger[0] + 0.25 * larger[1], larger.mean(0)]
    )  # times 0, 1 and 1.5 of 4
    found = rearrange(resize_table(table, (2, 3, 5), (4, 6, 7)), "1 (t h w) c -> t c h w", t=4, h=6)
    assert torch.allclose(found[:2], expected[:2], atol=1e-6)
    assert torch.allclose(found[1:3].mean(0), expected[2], atol=1e-6)


def test_positions_keep_an_aspect_ratio_that_is_not_square():
    state = state_of("mae_hiera_micro_16x32", input_size=(16, 32, 64))
    chosen, _ = adapt_state_dict(
        state, create_model("mae_hiera_micro_16x32", input_size=(16, 64, 128)), "x"
    )
    space, decoder = state["pos_embed_spatial"], state["decoder_pos_embed"]
    assert torch.equal(chosen["pos_embed_spatial"], resize_table(space, (1, 8, 16), (1, 16, 32)))
    assert torch.equal(chosen["decoder_pos_embed"], resize_table(decoder, (8, 4, 8), (8, 8, 16)))


def test_positions_are_resized_to_the_input_size():
    state = state_of("hiera_micro_16x32")
    state["pos_embed_temporal"] = torch.arange(8.0).view(1, 8, 1).expand(1, 8, 64).clone()
    model = create_model("hiera_micro_16x32", input_size=(32, 64, 48))
    chosen, report = adapt_state_dict(state, model, "x")
    assert chosen["pos_embed_spatial"].shape == (1, 16 * 12, 64)
    assert chosen["pos_embed_temporal"][0, :, 0].tolist() == pytest.approx(
        [0, *(0.25 + 0.5 * step for step in range(14)), 7]
    )
    assert report.notes == (
        "position embedding interpolated in time from 8 to 16",
        "position embedding interpolated in space from 8x8 to 16x12",
    )
    assert not report.newly_initialised


def test_decoder_positions_are_resized():
    state = state_of("mae_hiera_micro_16x32")
    chosen, report = adapt_state_dict(
        state, create_model("mae_hiera_micro_16x32", input_size=(16, 64, 64)), "x"
    )
    assert chosen["decoder_pos_embed"].shape == (1, 8 * 8 * 8, 128)
    assert report.notes[-1] == "decoder's position embedding interpolated"


def test_positions_of_unknown_aspect_are_rejected():
    state = state_of("hiera_micro_16x32", input_size=(16, 32, 48))
    with pytest.raises(
        CheckpointError,
        match="of 96 places, which is neither square nor of the model's aspect ratio 8x8",
    ):
        adapt_state_dict(state, create_model("hiera_micro_16x32"), "x")


def test_inflated_weights_give_the_image_models_features_on_a_still_video():
    image = Hiera(micro_image("hiera_micro_16x32")).eval()
    for parameter in image.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    video = create_model("hiera_micro_16x32").eval()
    chosen, report = adapt_state_dict(image.state_dict(), video, "x")
    video.load_state_dict(chosen)
    picture = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        flat = image.forward_features(picture)
        moving = video.forward_features(picture.unsqueeze(2).expand(-1, -1, 16, -1, -1))
        assert (moving - flat.unsqueeze(1)).abs().max() <= 1e-5 * flat.abs().max()
        assert torch.allclose(
            image(picture), video(picture.unsqueeze(2).expand(-1, -1, 16, -1, -1)), atol=1e-5
        )
    assert report.notes == ("image weights inflated in time (center)",)
    assert not report.newly_initialised


def test_mean_inflation_spreads_the_kernel():
    config = config_for("hiera_tiny_16x224")
    kernel = torch.randn(96, 3, 7, 7)
    inflated = inflate_image_weights({"patch_embed.proj.weight": kernel}, config, "mean")[
        "patch_embed.proj.weight"
    ]
    assert torch.allclose(inflated, kernel.unsqueeze(2).expand(-1, -1, 3, -1, -1) / 3)
    with pytest.raises(CheckpointError, match="inflation='edge': choose center or mean"):
        inflate_image_weights({"patch_embed.proj.weight": kernel}, config, "edge")


def test_inflation_drops_the_decoder():
    image = MaskedAutoencoderHiera(micro_image("mae_hiera_micro_16x32"), MaeConfig(mask_ratio=0.5))
    chosen, report = adapt_state_dict(
        image.state_dict(), create_model("mae_hiera_micro_16x32"), "x"
    )
    assert chosen["multi_scale_fusion_heads.0.weight"].shape == (256, 64, 1, 2, 2)
    assert all(name.startswith(("decoder_", "mask_token")) for name in report.newly_initialised)
    assert report.newly_initialised
