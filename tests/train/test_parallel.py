"""Data parallelism and sharding as far as one process can check them.

Two processes: tests/train/test_distributed.py and R6 and R7 in tests/faults.
"""

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
    gather_tensor,
    no_sync,
    require_visible_tensors,
    shard_like,
    unsharded_model,
    wrap_ddp,
)
from hiera_video.train.state import make_state


@dataclass
class Output:
    loss: Tensor


def test_a_single_process_needs_neither_ddp_nor_sharding() -> None:
    model = create_model("hiera_micro_16x32", num_classes=2)
    state = make_state(model, OptimConfig(), TrainConfig(parallel="fsdp", ema=0.9), SINGLE_PROCESS)
    assert state.gather_into is None and type(state.model) is type(model)
    assert wrap_ddp(model, SINGLE_PROCESS) is model
    with no_sync(model), unsharded_model(state.eval_model, state.gather_into) as evaluated:
        assert evaluated is state.eval_model
    value = torch.ones(3)
    assert gather_tensor(value) is value and shard_like(value, torch.zeros(3)) is value


def test_weights_are_gathered_for_the_block_only() -> None:
    model, copy = (create_model("hiera_micro_16x32", num_classes=2).eval() for _ in range(2))
    clips = torch.randn(1, 3, 16, 32, 32)
    expected, copy = model(clips), copy.to("meta")
    with unsharded_model(model, copy) as evaluated:
        assert evaluated is copy and torch.equal(evaluated(clips), expected)
    assert all(value.is_meta for value in [*copy.parameters(), *copy.buffers()])


def test_a_static_graph_needs_an_output_whose_tensors_torch_finds() -> None:
    for output in (torch.ones(1), {"loss": torch.ones(1)}, (torch.ones(1), None)):
        require_visible_tensors(nn.Identity(), (), output)
    words = "cannot find the tensors in Identity's Output, .* set train.static_graph=false"
    with pytest.raises(ConfigError, match=words):
        require_visible_tensors(nn.Identity(), (), Output(torch.ones(1)))


@pytest.mark.parametrize("other", [{"accumulate": 2}, {"parallel": "fsdp"}])
def test_a_static_graph_needs_ddp_without_accumulation(other: dict[str, object]) -> None:
    TrainConfig(static_graph=True)
    words = r"train.static_graph=true: needs .* \(pytorch#143580, #187732\); set"
    with pytest.raises(ConfigError, match=words):
        TrainConfig(static_graph=True, **other)  # type: ignore[arg-type]
