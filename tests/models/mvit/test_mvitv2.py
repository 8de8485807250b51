"""MViTv2 equals torchvision's from its state dict, and loads PySlowFast's names."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision.models.video import mvit_v2_s
from torchvision.models.video.mvit import MSBlockConfig, MViT

from hiera_video.errors import CheckpointError
from hiera_video.models.build import build_model
from hiera_video.models.factory import create_model
from hiera_video.models.macs import count_macs, count_parameters
from hiera_video.models.mvit.config import mvitv2_config
from hiera_video.models.mvit.names import rename_from_mvit
from hiera_video.models.registry import config_for, default_mae
from hiera_video.models.weights.load import load_pretrained


def oracle(
    stages: tuple[int, ...], dim: int, heads: int, kv: int, *, in_attention: bool = True
) -> MViT:
    """Return torchvision's MViTv2 of any size; the width doubles in attention, or in the MLP."""
    blocks = []
    for stage, depth in enumerate(stages):
        for index in range(depth):
            out = dim * 2**stage
            first, last = stage > 0 and index == 0, stage + 1 < len(stages) and index == depth - 1
            widths = (out // 2 if first else out, out) if in_attention else (out, out << last)
            pool = [1, 2, 2] if first else [1, 1, 1]
            stride = max(kv >> stage, 1)
            kernel, keys = [3, 3, 3], [1, stride, stride]
            blocks.append(MSBlockConfig(heads * 2**stage, *widths, kernel, kernel, pool, keys))
    size, frames = ((224, 224), 16) if dim == 144 else ((64, 64), 4)
    return MViT(
        size,
        frames,
        blocks,
        residual_pool=True,
        residual_with_cls_embed=False,
        rel_pos_embed=True,
        proj_after_attn=in_attention,
        num_classes=400,
    )


@torch.no_grad()
def redraw(model: nn.Module) -> None:
    """Redraw every parameter, position tables large enough that a wrong row shows."""
    for name, parameter in model.named_parameters():
        if "rel_pos" in name or "class_token" in name:
            parameter.normal_(std=0.5)
        elif parameter.ndim > 1:
            parameter.normal_(std=0.05)
        else:
            parameter.uniform_(-0.1, 0.1).add_(1.0 if parameter.mean() > 0.5 else 0.0)


@pytest.fixture(scope="module")
def small_oracle() -> MViT:
    torch.manual_seed(0)
    model = oracle((1, 2, 1, 1), dim=32, heads=1, kv=8).eval()
    redraw(model)
    return model


def twin(model: MViT) -> nn.Module:
    config = config_for("hiera_tiny_16x224", input_size=(4, 64, 64))
    config = replace(config, embed_dim=32, stages=(1, 2, 1, 1))
    ours = build_model(mvitv2_config(config, masked=False))
    report = load_pretrained(ours, _weights(model.state_dict()))
    assert not report.newly_initialised and not report.dropped
    return ours.eval()


def _weights(state):
    from hiera_video.models.weights.load import Weights
    from hiera_video.models.weights.state_dict import extract_state_dict

    return Weights(source="torchvision.pth", state=extract_state_dict(state, "torchvision.pth"))


@torch.no_grad()
def test_logits_equal_torchvisions(small_oracle):
    clips = torch.randn(2, 3, 4, 64, 64)
    ours = twin(small_oracle)
    assert count_parameters(ours) == count_parameters(small_oracle)
    expected, found = small_oracle(clips), ours(clips)
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_gradients_equal_torchvisions(small_oracle):
    clips = torch.randn(2, 3, 4, 64, 64)
    ours = twin(small_oracle)
    small_oracle(clips).square().sum().backward()
    ours(clips).square().sum().backward()
    gradients = {name: p.grad for name, p in small_oracle.named_parameters()}
    for name, gradient in rename_from_mvit(gradients).items():
        torch.testing.assert_close(
            ours.get_parameter(name).grad, gradient, atol=1e-4, rtol=1e-3, msg=name
        )
    small_oracle.zero_grad()


@pytest.mark.slow
@torch.no_grad()
def test_mvitv2_s_equals_torchvisions(tmp_path):
    torch.manual_seed(0)
    model = mvit_v2_s().eval()
    redraw(model)
    torch.save(model.state_dict(), tmp_path / "mvit_v2_s.pth")
    path = str(tmp_path / "mvit_v2_s.pth")
    ours = create_model("mvitv2_small_16x224", pretrained=path).eval()
    clips = torch.randn(1, 3, 16, 224, 224)
    torch.testing.assert_close(ours(clips), model(clips), atol=1e-5, rtol=0)


def test_pyslowfast_names():
    names = [
        *("cls_token", "patch_embed.proj.weight", "blocks.0.norm1.weight"),
        *("blocks.0.attn.qkv.weight", "blocks.0.attn.pool_q.weight", "blocks.0.attn.norm_q.bias"),
        *("blocks.1.attn.norm_v.weight", "blocks.1.attn.rel_pos_t", "blocks.2.proj.weight"),
        *("blocks.2.mlp.fc1.weight", "norm.weight", "head.projection.weight"),
    ]
    assert list(rename_from_mvit({name: torch.zeros(1) for name in names})) == [
        *("cls_token", "patch_embed.proj.weight", "blocks.0.norm1.weight"),
        "blocks.0.attn.qkv.weight",
        *("blocks.0.attn.pool_q.conv.weight", "blocks.0.attn.pool_q.norm.bias"),
        *("blocks.1.attn.pool_v.norm.weight", "blocks.1.attn.rel_pos.t", "blocks.2.proj.weight"),
        *("blocks.2.mlp.fc1.weight", "norm.weight", "head.projection.weight"),
    ]


def to_pyslowfast(name: str) -> str:
    """Return PySlowFast's name for one of ours."""
    for letter in "qkv":
        name = name.replace(f"pool_{letter}.norm", f"norm_{letter}")
    return name.replace(".conv.weight", ".weight").replace("rel_pos.", "rel_pos_")


def test_a_pyslowfast_checkpoint_loads(tmp_path):
    model = create_model("mvitv2_micro_16x32", num_classes=5)
    redraw(model)
    state = {to_pyslowfast(name): value for name, value in model.state_dict().items()}
    assert "blocks.0.attn.norm_k.weight" in state and "blocks.3.attn.rel_pos_h" in state
    torch.save({"epoch": 1, "model_state": state, "cfg": "MVIT: {}"}, tmp_path / "mvit.pyth")
    loaded = create_model("mvitv2_micro_16x32", pretrained=str(tmp_path / "mvit.pyth"))
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_an_autoencoder_initialises_a_classifier():
    """Tables of the unpooled last stage are interpolated; class token and head are new."""
    mae_config = replace(config_for("mae_mvitv2_micro_16x32"), stages=(1, 1, 2))
    mae = build_model(mae_config, default_mae("mae_mvitv2_micro_16x32"))
    classifier = build_model(replace(config_for("mvitv2_micro_16x32"), stages=(1, 1, 2)))
    report = load_pretrained(classifier, _weights(mae.state_dict()))
    assert [n for n in report.newly_initialised if not n.startswith("head.")] == [
        *("cls_token", "norm.weight", "norm.bias")
    ]
    assert report.notes == ("2 tables of relative positions interpolated",)
    last = "blocks.3.attn.rel_pos.h"
    assert (len(mae.get_parameter(last)), len(classifier.get_parameter(last))) == (7, 3)


def test_another_architecture_is_refused():
    hiera = create_model("hiera_micro_16x32", num_classes=5)
    model = create_model("mvitv2_micro_16x32", num_classes=5)
    with pytest.raises(CheckpointError, match=r"lacks blocks.0.attn.pool_q.conv.weight"):
        load_pretrained(model, _weights(hiera.state_dict()))
    rung = create_model("mae_ladder_a_micro_16x32")
    with pytest.raises(CheckpointError, match=r"also has blocks.0.attn.pool_q.conv.weight"):
        load_pretrained(hiera, _weights(rung.state_dict()))


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, pretrained="none")


@pytest.mark.slow
def test_parameters_and_macs_of_large_beside_the_published_ones():
    """Published for MViTv2-L 16×4: 218 M and 377 G, with the width doubled in the MLP."""
    shape = (3, 16, 224, 224)
    ours = on_meta("mvitv2_large_16x224")
    assert (count_parameters(ours), count_macs(ours, shape)) == (213_220_480, 361_211_230_656)
    with torch.device("meta"):
        in_attention = oracle((2, 6, 36, 4), 144, 2, 8)
        in_mlp = oracle((2, 6, 36, 4), 144, 2, 8, in_attention=False)
    assert count_parameters(in_attention) == count_parameters(ours)
    assert count_macs(in_attention, shape) == count_macs(ours, shape)
    assert round(count_parameters(in_mlp) / 1e6) == 218
    assert round(count_macs(in_mlp, shape) / 1e9) == 377


def test_the_class_token_is_classified():
    model = create_model("mvitv2_micro_16x32", num_classes=5).eval()
    clips = torch.randn(1, 3, 16, 32, 32)
    assert model.global_pool == "token"
    with torch.no_grad():
        logits = model(clips)
        model.cls_token.add_(1.0)
        assert not torch.equal(model(clips), logits)
    assert model.forward_features(clips).shape == (1, 8, 2, 2, 256)
    assert model.no_weight_decay() >= {"cls_token", "blocks.0.attn.rel_pos.t"}
    assert model.layer_id("cls_token") == 0
    assert default_mae("mae_mvitv2_micro_16x32").decoder_depth == 2


def test_info_describes_a_rung():
    """The counts of `hiera-video info` substitute plain tensors for parameters."""
    from hiera_video.workflows.info import ModelRequest, describe_model

    text = describe_model(ModelRequest(name="mvitv2_micro_16x32", num_classes=5))
    assert "parameters     1.22 M" in text and "activations a clip" in text
