from __future__ import annotations

from dataclasses import replace

import pytest

from hiera_video.errors import ConfigError, InputSizeError
from hiera_video.models.layout import HieraConfig, block_table, nearest_sizes, stage_table
from hiera_video.models.registry import config_for


def test_stages_of_base():
    stages = stage_table(HieraConfig())
    assert [stage.grid for stage in stages] == [(8, 56, 56), (8, 28, 28), (8, 14, 14), (8, 7, 7)]
    assert [stage.unit_shape for stage in stages] == [(1, 8, 8), (1, 4, 4), (1, 2, 2), (1, 1, 1)]
    assert [stage.dim for stage in stages] == [96, 192, 384, 768]
    assert [stage.heads for stage in stages] == [1, 2, 4, 8]
    assert [(stage.first_block, stage.last_block) for stage in stages] == [
        (0, 1),
        (2, 4),
        (5, 20),
        (21, 23),
    ]
    assert [stage.pools for stage in stages] == [False, True, True, True]


def test_global_attention_lags_by_one_block():
    stages = stage_table(HieraConfig())
    assert [stage.attention for stage in stages] == ["unit", "unit", "global", "global"]
    assert [stage.first_attention for stage in stages] == ["unit", "unit", "unit", "global"]
    blocks = block_table(HieraConfig())
    assert [blocks[index].attention for index in (4, 5, 6)] == ["unit", "unit", "global"]


def test_autoencoder_keeps_four_tokens_a_unit():
    config = config_for("mae_hiera_base_16x224")
    assert [stage.grid for stage in stage_table(config)][-2:] == [(8, 14, 14), (8, 14, 14)]
    assert (config.num_units, config.unit_rest, config.final_grid) == (392, (1, 2, 2), (8, 14, 14))


def test_micro_has_global_attention():
    for name in ("hiera_micro_16x32", "mae_hiera_micro_16x32"):
        assert [block.attention for block in block_table(config_for(name))] == [
            "unit",
            "unit",
            "global",
            "global",
        ]


def test_drop_path_grows_linearly():
    rates = [block.drop_path for block in block_table(replace(HieraConfig(), drop_path_rate=0.23))]
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0.23)
    assert rates[10] == pytest.approx(0.1)


def test_nearest_sizes():
    assert nearest_sizes((17, 225, 5), (2, 32, 32)) == ((16, 224, 32), (18, 256, 32))
    message = (
        r"input_size=\[17, 224, 225\]: frames 17 is not a multiple of 2, width 225 is not a "
        r"multiple of 32 .*"
        r"the nearest that fit are \[16, 224, 224\] or \[18, 224, 256\]"
    )
    with pytest.raises(InputSizeError, match=message):
        HieraConfig(input_size=(17, 224, 225))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input_size": (16,)}, r"input_size=\[16\]: give \(frames, height, width\)"),
        ({"q_stride": (2, 2)}, r"q_stride=\[2, 2\]: must have 3 numbers"),
        ({"embed_dim": 0}, "embed_dim=0: must be 1 or more"),
        ({"stages": ()}, r"stages=\[\]: every stage needs at least 1 block"),
        (
            {"mask_unit_attn": (True,)},
            r"mask_unit_attn=\[True\]: needs one entry for each of the 4 stages",
        ),
        ({"q_pool": 4}, "q_pool=4: must be between 0 and 3, the transitions between 4 stages"),
        (
            {"mask_unit_size": (1, 4, 4)},
            r"mask_unit_size=\[1, 4, 4\]: must be a multiple .* \[1, 8, 8\]",
        ),
        ({"num_heads": 5}, "embed_dim=96: not a multiple of num_heads=5"),
        ({"drop_path_rate": float("nan")}, "drop_path_rate=nan: must be in"),
        ({"head_dropout": 1.0}, "head_dropout=1.0: must be in"),
    ],
)
def test_wrong_values_are_rejected(changes, words):
    with pytest.raises(ConfigError, match=words):
        HieraConfig(**changes)
