"""Switches of the ladder: one change a rung, literal layouts, and errors."""

from __future__ import annotations

import ast
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

import hiera_video
from hiera_video.errors import ConfigError
from hiera_video.models.mvit.config import LadderConfig, ladder_table, mvitv2_config, rung_config
from hiera_video.models.registry import config_for, list_names

PACKAGE = Path(hiera_video.__file__).parent
MICRO = config_for("hiera_micro_16x32")
MVITV2 = config_for("mvitv2_large_16x224")


def test_each_rung_changes_one_thing():
    rungs = [mvitv2_config(MICRO, masked=True), *(rung_config(MICRO, rung) for rung in "abcdef")]
    changes = [
        {key: (old, new) for key, old in vars(one).items() if (new := vars(other)[key]) != old}
        for one, other in pairwise(rungs)
    ]
    assert changes == [
        {"relative_positions": (True, False)},
        {"pool": ("conv", "max")},
        {"stride_one_pools": (True, False)},
        {"overlap": (True, False), "separate_units": (True, False)},
        {"query_residual": (True, False)},
        {
            "mask_unit_attn": ((False, False, False), (True, False, False)),
            "kv_stride": ((1, 4, 4), ()),
        },
    ]


def test_rung_f_has_hieras_configuration():
    for name in ("hiera_large_16x224", "mae_hiera_base_224"):
        hiera, rung = config_for(name), config_for(name.replace("hiera", "ladder_f"))
        assert {key: vars(rung)[key] for key in vars(hiera)} == vars(hiera)
        new = {key: value for key, value in vars(rung).items() if key not in vars(hiera)}
        assert new == {
            "relative_positions": False,
            "class_token": False,
            "pool": "max",
            "stride_one_pools": False,
            "overlap": False,
            "separate_units": False,
            "query_residual": False,
            "kv_stride": (),
            "window": False,
        }


def test_names():
    names = list_names()
    ladder = [name for name in names if "hiera" not in name and "vit_" not in name]
    # four sizes of video and images, and micro; without autoencoders of windows
    assert len(ladder) == 2 * 9 * 7 + 8
    assert [name for name in ladder if name.endswith("tiny_16x224")] == [
        "mvitv2_tiny_16x224",
        *(f"ladder_{rung}_tiny_16x224" for rung in "abcdef"),
        "ladder_window_tiny_16x224",
        "mae_mvitv2_tiny_16x224",
        *(f"mae_ladder_{rung}_tiny_16x224" for rung in "abcdef"),
    ]


def test_strides_of_mvitv2_large():
    rows = ladder_table(MVITV2)
    assert [rows[index].kv_stride for index in (0, 1, 2, 8, 44, 47)] == [
        *((1, 8, 8), (1, 8, 8), (1, 4, 4), (1, 2, 2), (1, 1, 1), (1, 1, 1))
    ]
    assert [index for index, row in enumerate(rows) if row.q_stride == (1, 2, 2)] == [2, 8, 44]
    image = ladder_table(config_for("mvitv2_large_224"))
    assert [image[index].kv_stride for index in (0, 2, 8, 44)] == [(4, 4), (2, 2), (1, 1), (1, 1)]
    masked = ladder_table(config_for("mae_mvitv2_large_16x224"))  # its last stage is not pooled
    assert masked[44].q_stride == (1, 1, 1) and masked[44].kv_stride == (1, 2, 2)
    assert masked[44].unit_in == (1, 2, 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pool": "mean"}, r"pool='mean': choose conv or max"),
        ({"overlap": False}, r"pool='conv': needs overlap=True, as in every MViTv2"),
        (
            {"stride_one_pools": False},
            r"relative_positions: needs stride_one_pools=True, as in every MViTv2",
        ),
        (
            {"kv_stride": ()},
            r"relative_positions: needs kv_stride; within mask units there is none",
        ),
        ({"kv_stride": (8, 8)}, r"kv_stride=\[8, 8\]: must have 3 numbers, as input_size has"),
        (
            {"kv_stride": (1, 3, 3)},
            r"kv_stride=\[1, 3, 3\]: must divide mask_unit_size=\[1, 8, 8\]",
        ),
        (
            {"mask_unit_attn": (True,) * 4},
            r"kv_stride=\[1, 8, 8\]: pooled keys are attended over the clip; set every "
            r"mask_unit_attn to False",
        ),
    ],
)
def test_wrong_switches_are_rejected(changes, words):
    with pytest.raises(ConfigError, match=words):
        replace(MVITV2, **changes)


def test_a_maximum_without_overlap_joins_neighbours():
    with pytest.raises(
        ConfigError,
        match=r"kv_stride=\[1, 8, 1\]: must be a power of q_stride=\[1, 2, 2\], or the mask unit, "
        r"\[1, 8, 8\]",
    ):
        replace(config_for("ladder_d_tiny_16x224"), kv_stride=(1, 8, 1))


def test_the_main_path_imports_no_model_of_the_ladder():
    found = {
        (str(path.relative_to(PACKAGE)), node.module)
        for path in PACKAGE.rglob("*.py")
        if path.parent.name != "mvit"
        for node in ast.parse(path.read_text()).body  # not those inside functions
        if isinstance(node, ast.ImportFrom) and "models.mvit" in (node.module or "")
    }
    assert {module for _, module in found} == {
        "hiera_video.models.mvit.config",
        "hiera_video.models.mvit.names",
    }


def test_defaults_are_hieras():
    assert vars(LadderConfig()).items() >= vars(config_for("hiera_base_16x224")).items()
