from __future__ import annotations

import pytest
import torch

from hiera_video.errors import CheckpointError
from hiera_video.models.factory import create_model
from hiera_video.models.weights.convert import adapt_state_dict


def state_of(name, **options):
    return create_model(name, **options).state_dict()


def test_autoencoder_into_classifier_reports_new_and_dropped_parameters():
    chosen, report = adapt_state_dict(
        state_of("mae_hiera_micro_16x32"), create_model("hiera_micro_16x32"), "x"
    )
    assert set(report.newly_initialised) == {
        "norm.weight",
        "norm.bias",
        "head.projection.weight",
        "head.projection.bias",
    }
    assert "blocks.3.attn.qkv.weight" in chosen
    assert {"mask_token", "decoder_pos_embed", "encoder_norm.weight"} <= set(report.dropped)


def test_classifier_into_autoencoder_reports_new_and_dropped_parameters():
    _, report = adapt_state_dict(
        state_of("hiera_micro_16x32"), create_model("mae_hiera_micro_16x32"), "x"
    )
    assert {"mask_token", "decoder_pred.weight", "multi_scale_fusion_heads.0.bias"} <= set(
        report.newly_initialised
    )
    assert set(report.dropped) == {
        "norm.weight",
        "norm.bias",
        "head.projection.weight",
        "head.projection.bias",
    }


def test_head_of_another_class_count_is_newly_initialised():
    _, report = adapt_state_dict(
        state_of("hiera_micro_16x32"), create_model("hiera_micro_16x32", num_classes=10), "x"
    )
    assert report.notes == ("head newly initialised: the file has 400 classes, the model 10",)
    assert report.newly_initialised == ("head.projection.weight", "head.projection.bias")


def test_another_architecture_is_rejected():
    micro = state_of("hiera_micro_16x32")
    with torch.device("meta"):
        base = create_model("hiera_base_16x224")
        image = create_model("hiera_tiny_224")
        tiny = create_model("hiera_tiny_16x224")
    with pytest.raises(CheckpointError, match="has 64 channels and 4 blocks, the model 96 and 24"):
        adapt_state_dict(micro, base, "x")
    with pytest.raises(
        CheckpointError, match=r"another architecture \(it looks like hiera_tiny_…\)"
    ):
        adapt_state_dict(tiny.state_dict(), base, "x")
    with pytest.raises(
        CheckpointError, match="has a video model's weights, but the model takes images"
    ):
        adapt_state_dict(tiny.state_dict(), image, "x")
    with pytest.raises(CheckpointError, match="none of its 1 tensors has a name of Hiera's"):
        adapt_state_dict({"conv1.weight": torch.zeros(1)}, base, "x")
    with pytest.raises(
        CheckpointError, match=r"has no patch_embed.proj.weight; the checkpoint is damaged"
    ):
        adapt_state_dict(
            {name: value for name, value in micro.items() if "patch" not in name},
            create_model("hiera_micro_16x32"),
            "x",
        )


def test_missing_unexpected_and_misshapen_tensors_are_rejected():
    model = create_model("hiera_micro_16x32")
    state = model.state_dict()
    lacking = {name: value for name, value in state.items() if name != "blocks.2.norm1.bias"}
    with pytest.raises(
        CheckpointError, match=r"x: lacks blocks.2.norm1.bias; the checkpoint is incomplete"
    ):
        adapt_state_dict(lacking, model, "x")
    with pytest.raises(
        CheckpointError,
        match=r"x: also has blocks.2.extra; the checkpoint belongs to another architecture",
    ):
        adapt_state_dict({**state, "blocks.2.extra": torch.zeros(1)}, model, "x")
    with pytest.raises(
        CheckpointError,
        match=r"x: blocks.0.norm1.bias is \[3\] in the file and \[64\] in the model",
    ):
        adapt_state_dict({**state, "blocks.0.norm1.bias": torch.zeros(3)}, model, "x")
