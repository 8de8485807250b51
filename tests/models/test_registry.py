from __future__ import annotations

import subprocess
import sys

import pytest

from hiera_video.errors import ConfigError, InputSizeError
from hiera_video.models.registry import (
    MaeConfig,
    ModelConfig,
    config_for,
    default_mae,
    list_names,
    num_visible,
)


def test_every_size_has_its_four_names():
    names = list_names()
    for size in ("tiny", "small", "base", "base_plus", "large", "huge"):
        for shape in ("16x224", "224"):
            assert f"hiera_{size}_{shape}" in names
            assert f"mae_hiera_{size}_{shape}" in names


def test_torch_is_not_imported():
    modules = "hiera_video.models.registry, hiera_video.models.weights.published"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_config_for():
    config = config_for(
        "hiera_large_16x224", input_size=(32, 256, 288), num_classes=174, drop_path_rate=0.1
    )
    assert (config.token_grid, config.num_classes, config.stages) == (
        (16, 64, 72),
        174,
        (2, 6, 36, 4),
    )
    assert config_for("hiera_base_224").num_classes == 1000
    assert config_for("mae_hiera_base_16x224").q_pool == 2


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(
        ConfigError,
        match=r"model.name='hiera_bse_16x224': unknown model; did you mean hiera_base_16x224",
    ):
        ModelConfig(name="hiera_bse_16x224")
    with pytest.raises(
        ConfigError, match="unknown model; choose one of hiera_tiny_16x224, hiera_small"
    ):
        config_for("???")


def test_wrong_size_suggests_the_nearest():
    with pytest.raises(
        InputSizeError,
        match=r"model.input_size=\[16, 225, 225\].*\[16, 224, 224\] or \[16, 256, 256\]",
    ):
        ModelConfig(name="hiera_base_16x224", input_size=(16, 225, 225))
    with pytest.raises(
        ConfigError,
        match=r"hiera_base_16x224 takes \(frames, height, width\), such as \[16, 224, 224\]",
    ):
        ModelConfig(name="hiera_base_16x224", input_size=(224, 224))


def test_class_count_has_to_be_positive():
    with pytest.raises(ConfigError, match=r"model.num_classes=0: must be 1 or more"):
        ModelConfig(name="hiera_base_16x224", num_classes=0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask_ratio": 1.0}, "mae.mask_ratio=1.0: must be above 0 and below 1"),
        ({"mask_ratio": float("nan")}, "mae.mask_ratio=nan"),
        ({"decoder_depth": 0}, "mae.decoder_depth=0: must be 1 or more"),
        (
            {"decoder_num_heads": 7},
            "mae.decoder_embed_dim=512: not a multiple of decoder_num_heads=7",
        ),
        ({"decoder_share": 0.0}, "mae.decoder_share=0.0: must be above 0, at most 1"),
        ({"variance_floor": 0.0}, "mae.variance_floor=0.0: must be above 0 and finite"),
        ({"variance_floor": float("inf")}, "mae.variance_floor=inf: must be above 0 and finite"),
        ({"target": "depth"}, "mae.target='depth': choose one of pixels, hog"),
    ],
)
def test_wrong_mae_settings_are_rejected(changes, words):
    with pytest.raises(ConfigError, match=words):
        MaeConfig(**changes)


def test_visible_units():
    assert num_visible(392, 0.9) == 39
    assert num_visible(10, 0.9) == 1  # int(10 * (1 - 0.9)) would be 0
    assert (num_visible(49, 0.6), num_visible(784, 0.9)) == (19, 78)
    assert num_visible(49, 0.9, floor_hidden=True) == 5  # of VideoMAE's tubes
    assert num_visible(196, 0.9, floor_hidden=True) == 20
    with pytest.raises(
        ConfigError,
        match=r"mask_ratio=0.9: keeps 0 of 4 units; choose a ratio between 0.25 and 0.75",
    ):
        num_visible(4, 0.9)


def test_default_mae_follows_the_paper():
    assert default_mae("mae_hiera_base_16x224") == MaeConfig(mask_ratio=0.9, decoder_num_heads=8)
    assert default_mae("mae_hiera_base_224").mask_ratio == 0.6
