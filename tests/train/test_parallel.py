"""Sharding's parts that need no other process; two real ones: tests/train/test_distributed.py and tests/faults, R6 and R7."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from hiera_video.errors import ConfigError
from hiera_video.models.factory import create_model
from hiera_video.runtime.distributed import SINGLE_PROCESS
from hiera_video.train.config import OptimConfig, TrainConfig
from hiera_video.train.parallel import (
    blocks_of,
    cut_like,
    no_sync,
    require_visible,
    whole,
    whole_model,
    wrap,
)
from hiera_video.train.state import make_state


@dataclass
class Output:
    loss: Tensor


def test_one_process_needs_neither_ddp_nor_sharding() -> None:
    model = create_model("hiera_micro_16x32", num_classes=2)
    state = make_state(model, OptimConfig(), TrainConfig(parallel="fsdp", ema=0.9), SINGLE_PROCESS)
    assert (
        state.skeleton is None and type(state.model) is type(model) and wrap(model, SINGLE_PROCESS) is model
    )
    with no_sync(model), whole_model(state.validated, state.skeleton) as seen:
        assert seen is state.validated
    value = torch.ones(3)
    assert whole(value) is value and cut_like(value, torch.zeros(3)) is value


def test_the_blocks_of_encoder_and_decoder_are_found() -> None:
    assert (
        len(blocks_of(create_model("mae_hiera_micro_16x32")))
        > len(blocks_of(create_model("hiera_micro_16x32")))
        == 4
    )
    assert blocks_of(nn.Linear(2, 2)) == []


def test_a_skeleton_is_filled_while_it_is_looked_at_and_empty_afterwards() -> None:
    model, skeleton = (
        create_model("hiera_micro_16x32", num_classes=2).eval(),
        create_model("hiera_micro_16x32", num_classes=2),
    )
    clips = torch.randn(1, 3, 16, 32, 32)
    expected, skeleton = model(clips), skeleton.to("meta").eval()
    with whole_model(model, skeleton) as seen:
        assert seen is skeleton and torch.equal(seen(clips), expected)
    assert all(value.is_meta for value in [*skeleton.parameters(), *skeleton.buffers()])


def test_an_output_that_a_static_graph_would_not_see_is_refused() -> None:
    for seen in (torch.ones(1), {"loss": torch.ones(1)}, (torch.ones(1), None)):
        require_visible(nn.Identity(), (), seen)
    words = "cannot see the tensors in Identity's Output .* set train.static_graph=false"
    with pytest.raises(ConfigError, match=words):
        require_visible(nn.Identity(), (), Output(torch.ones(1)))


@pytest.mark.parametrize("other", [{"accumulate": 2}, {"parallel": "fsdp"}])
def test_a_static_graph_is_for_ddp_without_accumulation(other: dict[str, object]) -> None:
    TrainConfig(static_graph=True)
    with pytest.raises(
        ConfigError, match=r"train.static_graph=true: is for .* \(pytorch#143580, #187732\); set"
    ):
        TrainConfig(static_graph=True, **other)  # type: ignore[arg-type]
