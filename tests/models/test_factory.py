from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from hiera_video.errors import CheckpointError, ConfigError
from hiera_video.models.factory import create_model, list_models
from hiera_video.models.mae import MaeOutput, MaskedAutoencoderHiera
from hiera_video.models.registry import default_mae, list_names
from hiera_video.models.weights.load import Weights, from_pretrained
from hiera_video.models.weights.published import PUBLISHED
from hiera_video.models.weights.save import save_pretrained


def test_list_models():
    assert list_models("hiera_*_16x224") == [
        f"hiera_{size}_16x224" for size in ("tiny", "small", "base", "base_plus", "large", "huge")
    ]
    assert list_models("mae_hiera*large*") == ["mae_hiera_large_16x224", "mae_hiera_large_224"]
    assert list_models() == list(list_names())
    assert list_models(["mae_hiera_tiny_224", "hiera_tiny*"]) == [
        *("hiera_tiny_16x224", "hiera_tiny_224", "mae_hiera_tiny_224")
    ]
    assert list_models("*", pretrained=True) == [name for name in list_names() if name in PUBLISHED]


def test_every_name_builds():
    sizes = [name for name in list_models() if "hiera" in name or "micro" in name]
    for name in sizes:  # of the ladder one size; the others differ in numbers alone
        with torch.device("meta"):
            model = create_model(name, pretrained="none")
        assert model.config.input_size[-1] in (32, 224)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"pretrained": True},
            "pretrained=True: hiera_micro_16x32 has no published weights; name a file, a run folder"
            ", hf-hub:owner/name, or the tag of another model, such as hiera_base_16x224.mae_k400",
        ),
        (
            {"drop_rate": 0.1, "img_size": 32, "scale": 2},
            "create_model has no such arguments: drop_rate: use head_dropout; img_size: use "
            "input_size; scale: unknown",
        ),
        ({"features_only": True}, "features_only: use model.forward_intermediates(clips, "),
        ({"in_chans": 0}, "in_chans=0: must be 1 or more"),
        (
            {"input_size": 64},
            "input_size=64: hiera_micro_16x32 takes (frames, height, width), such as [16, 32, 32]",
        ),
    ],
)
def test_arguments_of_other_libraries_are_rejected(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        create_model("hiera_micro_16x32", **settings)


def test_name_with_a_tag_is_rejected_with_the_remedy() -> None:
    words = "name='hiera_base_16x224.mae_k400': use name=hiera_base_16x224 with pretrained=mae_k400"
    with pytest.raises(ConfigError, match=re.escape(words)):
        create_model("hiera_base_16x224.mae_k400")


@pytest.mark.parametrize(
    ("name", "tag"),
    [("hiera_tiny_224", "mae_in1k_ft_in1k"), ("mae_hiera_tiny_224", "mae_in1k")],
)
def test_pretrained_is_true_or_false_as_in_timm(name: str, tag: str) -> None:
    size = (64, 64)
    state = create_model(name, input_size=size, pretrained=False, num_classes=7).state_dict()
    found = Weights(source=tag, state=state)
    with mock.patch("hiera_video.models.factory.read_weights", return_value=found) as read:
        model = create_model(name, input_size=size, pretrained=True)
    assert read.call_args.args == (tag, name)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_unknown_names_stay_unknown_with_pretrained() -> None:
    with pytest.raises(ConfigError, match="unknown model; did you mean hiera_base_16x224"):
        create_model("hiera_bse_16x224", pretrained=True)


@pytest.mark.parametrize("prefix", ["", "mae_"])
def test_other_channels(prefix: str, tmp_path: Path) -> None:
    model = create_model(f"{prefix}hiera_micro_16x32", in_chans=2)
    clips = torch.randn(1, 2, 16, 32, 32)
    out = model(clips)
    assert (out.loss if isinstance(out, MaeOutput) else out).isfinite().all()
    again = from_pretrained(save_pretrained(model, tmp_path))
    assert again.config.in_chans == 2
    words = "takes 2 channels, the model 3; create the model with in_chans=2"
    with pytest.raises(CheckpointError, match=words):
        create_model(f"{prefix}hiera_micro_16x32", pretrained=tmp_path)


def test_masking_and_decoder_by_their_keys() -> None:
    model = create_model("mae_hiera_micro_16x32", mae={"mask_ratio": 0.5, "decoder_depth": 1})
    assert isinstance(model, MaskedAutoencoderHiera)
    expected = replace(default_mae("mae_hiera_micro_16x32"), mask_ratio=0.5, decoder_depth=1)
    assert model.mae == expected
    with pytest.raises(ConfigError, match="mae: has no key 'ratio'; its keys: mask_ratio, decoder"):
        create_model("mae_hiera_micro_16x32", mae={"ratio": 0.5})
    with pytest.raises(ConfigError, match="mae was given, but hiera_micro_16x32 is a classifier"):
        create_model("hiera_micro_16x32", mae={"mask_ratio": 0.5})
