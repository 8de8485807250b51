"""Memory of a training step, counted without computing it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from hiera_video.models.hiera import Hiera


def count_saved_bytes(model: Hiera, input_shape: tuple[int, ...]) -> int:
    """Count the bytes that a forward pass of one sample keeps for the backward pass, in float32.

    Each tensor counts once, and parameters do not count. Nothing is allocated or computed. Measured
    steps of Hiera-B and -L take 7 to 25 % less, because some tensors are freed along the way.

    Args:
        model: A classifier in training mode, on any device.
        input_shape: Shape of one sample without the batch: (C, T, H, W) or (C, H, W).
    """
    sizes: dict[int, int] = {}
    kept: list[Tensor] = []  # an address may be used again once its tensor is gone

    def record(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage._cdata] = storage.nbytes()
        kept.append(tensor)
        return tensor

    with FakeTensorMode():
        parameters = {
            name: torch.empty(p.shape, requires_grad=p.requires_grad)
            for name, p in model.named_parameters()
        }
        buffers = {name: torch.empty(b.shape, dtype=b.dtype) for name, b in model.named_buffers()}
        clips = torch.empty(1, *input_shape)
        with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
            torch.func.functional_call(model, {**parameters, **buffers}, (clips,))
        for parameter in parameters.values():
            sizes.pop(parameter.untyped_storage()._cdata, None)
    return sum(sizes.values())
