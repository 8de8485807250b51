"""Low-rank adapters: their arithmetic, and the merged weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.models.linear import FusedLinear
from hiera_video.models.lora import LowRankLinear, add_adapters, has_adapters, merge_adapters

CLIPS = (2, 3, 16, 32, 32)


def test_an_adapted_layer_adds_the_update_of_low_rank() -> None:
    linear = FusedLinear(2, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        linear.bias.copy_(torch.tensor([0.5, -0.5]))
    adapted = LowRankLinear(linear, rank=1)
    x = torch.tensor([[1.0, 10.0]])
    assert adapted(x).tolist() == [[21.5, 42.5]]  # the update is zero at first
    with torch.no_grad():
        adapted.lora_a.copy_(torch.tensor([[1.0, 1.0]]))
        adapted.lora_b.copy_(torch.tensor([[2.0], [-1.0]]))
    assert adapted(x).tolist() == [[43.5, 31.5]]  # + 11 · 2, + 11 · -1
    state = merge_adapters(adapted.state_dict())
    assert {name: value.tolist() for name, value in state.items()} == {
        "weight": [[3.0, 4.0], [2.0, 3.0]],
        "bias": [0.5, -0.5],
    }


def test_merged_weights_compute_the_same_to_1e_6(random_model: Callable[[], Hiera]) -> None:
    adapted = random_model()
    plain = {name: value.clone() for name, value in adapted.state_dict().items()}
    add_adapters(adapted, 4)
    assert has_adapters(adapted) and not has_adapters(random_model())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_" in name:
                value.normal_(std=0.05, generator=generator)
    clips = torch.randn(CLIPS, generator=generator)
    merged = create_model("hiera_micro_16x32", num_classes=3)
    state = merge_adapters(adapted.state_dict())
    assert list(state) == list(plain)
    changed = [name for name, value in state.items() if not torch.equal(value, plain[name])]
    expected = [
        f"blocks.{block}.attn.{layer}.weight" for block in range(4) for layer in ("qkv", "proj")
    ]
    assert changed == expected
    merged.load_state_dict(state)
    before = random_model().eval()(clips)
    with torch.no_grad():
        first, second = adapted.eval()(clips), merged.eval()(clips)
    assert (first - before).abs().max() > 1e-3
    assert (first - second).abs().max() <= 1e-6 * first.abs().max()


def test_first_blocks_may_stay_without_adapters(random_model: Callable[[], Hiera]) -> None:
    model = random_model()
    add_adapters(model, 2, first_block=3)
    names = [name for name, value in model.named_parameters() if "lora_" in name]
    assert names == [
        f"blocks.3.attn.{layer}.{part}"
        for layer in ("qkv", "proj")
        for part in ("lora_a", "lora_b")
    ]
    assert model.layer_id(names[0]) == 4


def test_a_state_without_adapters_stays_as_it_is() -> None:
    state = nn.Linear(2, 1).state_dict()
    assert merge_adapters(state) == state
