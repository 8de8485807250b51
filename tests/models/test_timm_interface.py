"""Interface shared with timm's models (issue I, weights 4): equal values and shapes."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from hiera_video.errors import ConfigError
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.models.registry import config_for
from hiera_video.models.weights.load import load_pretrained
from hiera_video.train.config import OptimConfig
from hiera_video.train.optim import parameter_groups

SMALL: dict[str, Any] = {"embed_dim": 16, "stages": (1, 2, 1, 1)}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Hiera, nn.Module]:
    """Our model and timm's, of the same random weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm's import beside hiera-transformer
        from timm.models.hiera import Hiera as TimmHiera

        theirs = TimmHiera(**SMALL, img_size=(96, 64), num_classes=5).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    config = config_for("hiera_tiny_224", input_size=(96, 64), num_classes=5)
    ours = Hiera(replace(config, **SMALL)).eval()
    load_pretrained(ours, tmp_path / "x.pth")
    return ours, theirs


def test_properties(pair: tuple[Hiera, Any]) -> None:
    ours, theirs = pair
    assert (ours.num_classes, ours.num_features, ours.head_hidden_size) == (5, 128, 128)
    assert ours.feature_info == [
        {"num_chs": 16, "reduction": 4, "module": "blocks.0"},
        {"num_chs": 32, "reduction": 8, "module": "blocks.2"},
        {"num_chs": 64, "reduction": 16, "module": "blocks.3"},
        {"num_chs": 128, "reduction": 32, "module": "blocks.4"},
    ]
    assert ours.feature_info == theirs.feature_info
    assert ours.head_hidden_size == theirs.head_hidden_size
    mae = create_model("mae_hiera_micro_16x32")  # pools one time less
    assert [stage["reduction"] for stage in mae.feature_info] == [4, 8, 8]


@pytest.mark.parametrize("output_fmt", ["NCHW", "NHWC"])
@pytest.mark.parametrize("indices", [None, 1, 2, [0, 2], (-1, 1), [3]], ids=str)
def test_intermediates_equal_timms(pair: tuple[Hiera, Any], indices: Any, output_fmt: Any) -> None:
    ours, theirs = pair
    images, options = torch.randn(2, 3, 96, 64), {"indices": indices, "output_fmt": output_fmt}
    with torch.no_grad():
        expected = theirs.forward_intermediates(images, intermediates_only=True, **options)
        found = ours.forward_intermediates(images, **options)
    assert [one.shape for one in found] == [one.shape for one in expected]
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found, expected))


def test_intermediates_of_a_video() -> None:
    model = create_model("hiera_micro_16x32", num_classes=0).eval()
    clips = torch.randn(2, 3, 16, 32, 32)
    with torch.no_grad():
        whole = model.forward_intermediates(clips)
        first, last = model.forward_intermediates(clips, indices=[0, -1], output_fmt="NCHW")
        (visible,) = model.forward_intermediates(
            clips, torch.tensor([[True] * 3 + [False] * 29] * 2), indices=1, output_fmt="NCHW"
        )
    assert (first.shape, last.shape) == ((2, 64, 8, 8, 8), (2, 256, 8, 2, 2))
    assert visible.shape == (2, 3, 256, 1, 1, 1)
    assert torch.equal(first.movedim(1, -1), whole[0])
    assert torch.equal(last.movedim(1, -1), whole[-1])


def test_accessors_of_feature_info(pair: tuple[Hiera, Any]) -> None:
    from timm.models._features import FeatureInfo

    ours, theirs = pair[0].feature_info, FeatureInfo(list(pair[1].feature_info), (0, 1, 2, 3))
    assert ours.channels() == theirs.channels() == [16, 32, 64, 128]
    assert ours.reduction() == theirs.reduction() == [4, 8, 16, 32]
    assert ours.module_name() == theirs.module_name()


def test_features_beside_intermediates() -> None:
    model = create_model("hiera_micro_16x32", num_classes=0).eval()
    clips = torch.randn(1, 3, 16, 32, 32)
    with torch.no_grad():
        last, (first,) = model.forward_intermediates(clips, indices=[0], intermediates_only=False)
        assert torch.equal(last, model.forward_features(clips))
    assert first.shape == (1, 8, 8, 8, 64)
    with pytest.raises(ConfigError, match="norm=True: only the last stage has a norm; apply model"):
        model.forward_intermediates(clips, norm=True)


NAMES = (
    *("hiera_micro_16x32", "mae_hiera_micro_16x32", "mvitv2_micro_16x32", "ladder_c_micro_16x32"),
    *("vit_micro_16x32", "mae_vit_st_micro_16x32"),
)


@pytest.mark.parametrize("name", NAMES)
def test_timms_layer_decay_gives_the_groups_of_ours(name: str) -> None:
    from timm.optim import param_groups_layer_decay

    model = create_model(name)
    ours = parameter_groups(model, OptimConfig(weight_decay=0.05, layer_decay=0.65))
    theirs = param_groups_layer_decay(
        model, 0.05, no_weight_decay_list=model.no_weight_decay(), layer_decay=0.65
    )
    assert rates(theirs) == rates(ours)
    assert len(rates(ours)) == len(list(model.parameters()))


def rates(groups: list[dict[str, Any]]) -> dict[int, tuple[float, float]]:
    return {
        id(one): (group["lr_scale"], group["weight_decay"])
        for group in groups
        for one in group["params"]
    }


def test_coarse_groups_are_stages() -> None:
    from timm.models import group_parameters

    model = create_model("hiera_micro_16x32")
    groups = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    blocks = [groups[f"blocks.{index}.norm1.weight"] for index in range(4)]
    assert blocks == [1, 2, 2, 3]  # stages of 1, 2 and 1 blocks
    assert (groups["patch_embed.proj.weight"], groups["head.projection.bias"]) == (0, 4)


@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_is_set_after_creation(name: str) -> None:
    model = create_model(name).train()
    clips = torch.randn(1, 3, 16, 32, 32)
    with mock.patch("hiera_video.models.hiera.checkpoint", wraps=checkpoint) as spy:
        model.set_grad_checkpointing()
        model(clips)
        used = spy.call_count
        model.set_grad_checkpointing(enable=False)
        model(clips)
    assert used >= model.config.depth and spy.call_count == used


def test_unknown_stages_and_formats_are_rejected() -> None:
    model, clips = create_model("hiera_micro_16x32"), torch.randn(1, 3, 16, 32, 32)
    words = r"the model has 3 stages, 0 to 2; give some of them, or a number from 1 to 3"
    for indices in ([3], [0, -4], [], 0, 4, -1):
        with pytest.raises(ConfigError, match=words):
            model.forward_intermediates(clips, indices=indices)
    with pytest.raises(ConfigError, match="output_fmt='NLC': choose NHWC or NCHW"):
        model.forward_intermediates(clips, output_fmt="NLC")  # type: ignore[arg-type]


def test_classifier_without_pooling_equals_timms(pair: tuple[Hiera, Any]) -> None:
    ours, theirs = pair
    images = torch.randn(2, 3, 96, 64)
    ours.reset_classifier(0, "")
    theirs.reset_classifier(0, "")
    assert ours.num_classes == 0
    with torch.no_grad():
        assert ours(images).shape == (2, 6, 128)
        assert torch.allclose(ours(images), theirs(images), atol=1e-5)
        ours.reset_classifier(7)
        assert ours(images).shape == (2, 6, 7)  # pooling stays as it was
        ours.reset_classifier(0, "avg")
        theirs.reset_classifier(0, "avg")
        assert torch.allclose(ours(images), theirs(images), atol=1e-5)
    with pytest.raises(ConfigError, match="global_pool='max': choose 'avg', or '' for no pooling"):
        ours.reset_classifier(3, "max")
    assert ours.num_classes == 0
