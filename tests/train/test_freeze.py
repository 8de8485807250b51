"""Frozen parts and adapters: which parameters are trained, and which gradients exist."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from hiera_video.errors import ConfigError
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.train.config import OptimConfig, TrainConfig
from hiera_video.train.freeze import restrict_training
from hiera_video.train.optim import make_optimizer

NORM_AND_HEAD = ["norm.weight", "norm.bias", "head.projection.weight", "head.projection.bias"]


def trained(model: Hiera) -> list[str]:
    return [name for name, value in model.named_parameters() if value.requires_grad]


@pytest.mark.parametrize(
    ("freeze", "expected"),
    [
        (["patch_embed", "pos_embed", "blocks:4"], NORM_AND_HEAD),
        (["patch_embed", "pos_embed", "blocks:4", "norm"], NORM_AND_HEAD[2:]),
    ],
)
def test_frozen_parts_get_no_gradient_and_no_step(
    random_model: Callable[[], Hiera], freeze: list[str], expected: list[str]
) -> None:
    model = random_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    restrict_training(model, freeze, None)
    assert trained(model) == expected
    optimizer = make_optimizer(model, OptimConfig(lr=0.1, layer_decay=0.5))
    model(torch.randn(1, 3, 16, 32, 32)).square().sum().backward()
    optimizer.step()
    changed = [name for name, value in model.state_dict().items() if not value.equal(before[name])]
    assert changed == expected


def test_the_number_of_frozen_blocks(random_model: Callable[[], Hiera]) -> None:
    model = random_model()
    restrict_training(model, ["blocks:2"], None)
    assert {name.split(".")[1] for name in trained(model) if name.startswith("blocks")} == {
        "2",
        "3",
    }
    assert {"patch_embed.proj.weight", "pos_embed_spatial", *NORM_AND_HEAD} <= set(trained(model))


def test_with_adapters_the_encoder_is_frozen(random_model: Callable[[], Hiera]) -> None:
    model = random_model()
    restrict_training(model, ["blocks:3"], 2)
    adapters = [
        f"blocks.3.attn.{layer}.{part}"
        for layer in ("qkv", "proj")
        for part in ("lora_a", "lora_b")
    ]
    assert trained(model) == [*adapters, *NORM_AND_HEAD]


def test_with_adapters_a_class_token_is_frozen() -> None:
    model = create_model("mvitv2_micro_16x32", num_classes=3)
    restrict_training(model, [], 2)
    assert not model.cls_token.requires_grad
    assert [name for name in trained(model) if "lora" not in name] == NORM_AND_HEAD  # type: ignore[arg-type]


def test_nothing_is_frozen_by_default(random_model: Callable[[], Hiera]) -> None:
    model = random_model()
    restrict_training(model, TrainConfig().freeze, OptimConfig().lora_rank)
    assert len(trained(model)) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        (
            TrainConfig,
            {"freeze": ["stem", "blocks:x"]},
            r"train.freeze=\['stem', 'blocks:x'\]: unknown stem, blocks:x; choose from "
            "patch_embed, pos_embed, norm and blocks:N, the first N blocks",
        ),
        (
            TrainConfig,
            {"freeze": ["norm"], "task": "pretrain"},
            "goes with train.task=classify or detect, not pretrain; remove one of them",
        ),
        (TrainConfig, {"early_stop": 0}, "train.early_stop=0: must be 1 or more, or null to train"),
        (OptimConfig, {"lora_rank": 0}, "optim.lora_rank=0: must be 1 or more, or null for no ad"),
    ],
)
def test_invalid_values(section: type, values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        section(**values)
