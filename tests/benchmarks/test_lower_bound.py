"""The lower bound runs the products that it counts, which are the model's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import speed_lower_bound
import torch
from speed_case import Case
from speed_lower_bound import (
    Attention,
    Kernel,
    LowerBound,
    Product,
    layers_of,
    mm_kernel,
    onednn_kernel,
    total_macs,
)
from torch.utils.flop_counter import FlopCounterMode

from hiera_video.models.hiera import Hiera
from hiera_video.models.macs import count_macs
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.registry import MaeConfig, config_for, default_mae


@pytest.mark.parametrize(
    "name", ["hiera_micro_16x32", "hiera_base_16x224", "hiera_large_16x224", "hiera_tiny_224"]
)
def test_macs_equal_those_that_torch_counts(name: str) -> None:
    config = config_for(name)
    with torch.device("meta"):
        model = Hiera(config)
    assert total_macs(layers_of(config)) == count_macs(model, (3, *config.input_size))


@pytest.mark.parametrize("tokens", ["all", "running_cell", "random"])
@pytest.mark.parametrize("name", ["mae_hiera_micro_16x32", "mae_hiera_base_16x224"])
def test_macs_of_the_autoencoder_equal_those_that_torch_counts(name: str, tokens: str) -> None:
    config, default = config_for(name), default_mae(name)
    depth, heads = default.decoder_depth, default.decoder_num_heads
    mae = MaeConfig(
        decoder_embed_dim=default.decoder_embed_dim,
        decoder_depth=depth,
        decoder_num_heads=heads,
        decoder_tokens=tokens,  # type: ignore[arg-type]
    )
    with torch.device("meta"):
        model = MaskedAutoencoderHiera(config, mae)
    counted = count_macs(model, (3, *config.input_size))
    # the lower bound embeds the patches of visible units alone; a model may embed all, 1.5 % more
    assert total_macs(layers_of(config, mae)) == pytest.approx(counted, rel=0.02)


def test_macs_of_base_equal_the_papers() -> None:
    layers = layers_of(config_for("hiera_base_16x224"))
    assert round(total_macs(layers) / 1e9, 1) == 101.7
    # three times as many, less the gradient of the pixels
    assert round(total_macs(layers, backward=True) / 1e9, 1) == 304.1
    whole = [layer for layer in layers if isinstance(layer, Attention) and layer.whole]
    # stage 3: all but the first of 16 blocks; stage 4: the first, which attends as stage 3, and 2
    assert sorted((a.queries, a.keys, a.times) for a in whole) == [
        (392, 392, 2),
        (392, 1568, 1),
        (1568, 1568, 15),
    ]


def linear_flops(
    x_shape: Sequence[int], weight_shape: Sequence[int], *_: object, **__: object
) -> int:
    """Count oneDNN's product, which is unknown to torch's counter."""
    return 2 * math.prod(x_shape) * weight_shape[0]


@pytest.mark.parametrize("kernel", [mm_kernel, onednn_kernel])
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("mode", ["model", "mae"])
def test_a_run_executes_the_macs_of_its_layers(mode: str, backward: bool, kernel: Kernel) -> None:
    case = Case(mode=mode, size="micro", resolution=32)  # type: ignore[arg-type]
    products = [
        layer for layer in layers_of(case.config, case.mae()) if not isinstance(layer, Attention)
    ]
    bound = LowerBound(products, 2, torch.float32, torch.device("cpu"), backward)
    bound.fastest = dict.fromkeys(bound.fastest, kernel)
    fused = torch.ops.mkldnn._linear_pointwise
    with FlopCounterMode(display=False, custom_mapping={fused: linear_flops}) as counter:
        bound.run()
    assert counter.get_total_flops() // 2 == 2 * total_macs(products, backward)


def test_both_kernels_give_the_same_product() -> None:
    left, right, out = torch.randn(30, 20), torch.randn(40, 20), torch.empty(30, 40)
    mm_kernel(left, right, out)
    torch.testing.assert_close(onednn_kernel(left, right, out), out)


def test_the_faster_kernel_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are timed for each product of the forward and the backward pass."""

    def seconds(kernel: Kernel, operands: tuple[torch.Tensor, ...]) -> float:
        """Make oneDNN faster for the weight's gradient alone, whose left operand is transposed."""
        return 2.0 if kernel is onednn_kernel else 1.0 if operands[0].is_contiguous() else 3.0

    monkeypatch.setattr(speed_lower_bound, "_seconds", seconds)
    products = [
        Product(label="a", rows=6, inner=4, columns=5),
        Product(label="b", rows=7, inner=4, columns=5),
    ]
    bound = LowerBound(products, 1, torch.float32, torch.device("cpu"), backward=True)
    assert [bound.fastest[layer, n] for layer in products for n in range(3)] == [
        mm_kernel,
        onednn_kernel,
        mm_kernel,
    ] * 2
    in_halves = LowerBound(products, 1, torch.bfloat16, torch.device("cpu"), backward=True)
    assert set(in_halves.fastest.values()) == {mm_kernel}


def test_attention_runs_with_its_backward_pass() -> None:
    case = Case(mode="model", size="micro", resolution=32)
    attentions = [layer for layer in layers_of(case.config) if isinstance(layer, Attention)]
    bound = LowerBound(attentions, 1, torch.float32, torch.device("cpu"), backward=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        bound.run()
    calls = {event.key: event.count for event in profiled.key_averages()}
    forward = next(
        count
        for key, count in calls.items()
        if "scaled_dot_product_attention" in key and "back" not in key
    )
    assert forward == sum(layer.times for layer in attentions)
    assert any("attention" in key and "backward" in key for key in calls)
