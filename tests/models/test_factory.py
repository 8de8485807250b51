from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from hiera_video.errors import ConfigError
from hiera_video.models.factory import create_model, list_models
from hiera_video.models.registry import list_names


def test_list_models():
    assert list_models("hiera_*_16x224") == [
        f"hiera_{size}_16x224" for size in ("tiny", "small", "base", "base_plus", "large", "huge")
    ]
    assert list_models("mae_hiera*large*") == ["mae_hiera_large_16x224", "mae_hiera_large_224"]
    assert list_models() == list(list_names())


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
            "pretrained=True: name the weights (a tag such as mae_k400_ft_k400, a file,",
        ),
        ({"pretrained": False}, "pretrained=False: name the weights"),
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
