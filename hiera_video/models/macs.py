"""Model cost: multiply-accumulates and parameters, counted as in the paper."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module, *, trained: bool = False) -> int:
    """Count the parameters of `model`; with `trained`, those that are not frozen."""
    return sum(
        parameter.numel()
        for parameter in model.parameters()
        if parameter.requires_grad or not trained
    )


def count_macs(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Count the multiply-accumulates of one forward pass in evaluation mode.

    Both attention products count, as in the paper's "GFLOPs". Runs on the meta device: no memory is
    allocated and nothing is computed.

    Args:
        model: A `Hiera` or `MaskedAutoencoderHiera`; its mode is restored.
        input_shape: Shape of one sample without the batch: (C, T, H, W) or (C, H, W).
    """
    state = {
        name: tensor.to("meta")
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    clips = torch.empty(1, *input_shape, device="meta")
    training = model.training
    model.eval()
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            torch.func.functional_call(model, state, (clips,))
    finally:
        model.train(training)
    return int(counter.get_total_flops()) // 2
