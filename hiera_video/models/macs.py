"""What a model costs: multiply-accumulates and parameters, in the paper's way of counting."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Parameters of the model, trainable or not."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of one forward pass for one sample of `input_shape` (channels first, without the batch),
    with both attention products, as the paper's "GFLOPs" do. Runs on the meta device: no memory, no arithmetic."""
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
