"""Several devices: each with the whole model (DDP), or with a share of weights, gradients and optimizer (FSDP2).

    shard(model, world)             in place, before the optimizer is made; block by block
    wrapped = wrap(model, world)    what the task calls
    with no_sync(wrapped): …    the parts of a batch but the last

A sharded tensor is a `DTensor`; `whole` and `cut_like` go from one to a plain tensor and back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_leaves

from hiera_video.errors import ConfigError
from hiera_video.runtime.distributed import World


def shard(model: nn.Module, world: World) -> None:
    """Give each rank its share of every parameter, in place; a block is whole only while it computes.

    Parameters travel as fp32 and autocast makes halves of them, so that each rank computes what DDP would, at every
    precision. Those halves live until the backward pass has used them, unless `model.checkpointing` is on.
    """
    mesh = init_device_mesh(world.device.type, (world.size,))
    for block in blocks_of(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The transformer blocks, those of a decoder too."""
    found: Any = [*getattr(model, "blocks", ()), *getattr(model, "decoder_blocks", ())]
    return list(found)


def wrap(model: nn.Module, world: World, *, static_graph: bool = False) -> nn.Module:
    """`model` with gradients averaged over the ranks; a sharded model sees to it itself."""
    if world.size == 1 or isinstance(model, FSDPModule):
        return model
    ids = [world.device.index] if world.device.type == "cuda" else None
    if static_graph:
        model.register_forward_hook(require_visible)
    return nn.parallel.DistributedDataParallel(
        model, device_ids=ids, gradient_as_bucket_view=True, static_graph=static_graph
    )


def require_visible(model: nn.Module, arguments: Any, output: Any) -> None:
    """DDP hangs the first exchange of a static graph on the output's tensors. Where it finds none, as in a dataclass of
    ours, it leaves the first step's gradients unexchanged without a word: raises `ConfigError` then."""
    if not any(isinstance(leaf, Tensor) for leaf in tree_leaves(output)):
        raise ConfigError(
            f"train.static_graph=true: torch cannot see the tensors in {type(model).__name__}'s {type(output).__name__} and "
            "would not exchange the first step's gradients; set train.static_graph=false"
        )


@contextmanager
def no_sync(model: nn.Module) -> Iterator[None]:
    """While entered, gradients add up on each rank alone."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        with model.no_sync():
            yield
    elif isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(False)
        yield
        model.set_requires_gradient_sync(True)
    else:
        yield


@contextmanager
def whole_model(model: nn.Module, skeleton: nn.Module | None) -> Iterator[nn.Module]:
    """`model` itself or, where it is sharded, its weights gathered into `skeleton` on every rank: an evaluator may then
    call it as often as it has videos, which is not equally often on all ranks."""
    if skeleton is None:
        yield model
        return
    values: dict[str, Tensor] = dict(chain(model.named_parameters(), model.named_buffers()))
    skeleton.to_empty(device=next(iter(values.values())).device)
    with torch.no_grad():
        for name, target in chain(skeleton.named_parameters(), skeleton.named_buffers()):
            target.copy_(whole(values[name]))
    try:
        yield skeleton
    finally:
        skeleton.to("meta")


def whole(value: Tensor) -> Tensor:
    """All of a tensor; a sharded one is gathered, which every rank has to call for."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def cut_like(value: Tensor, reference: Tensor) -> Tensor:
    """This rank's share of `value`, which it has whole, cut as `reference` is; `value` itself where that is whole."""
    if not isinstance(reference, DTensor):
        return value
    mesh, placements = reference.device_mesh, reference.placements
    return distribute_tensor(
        value.detach().to(reference.device), mesh, placements, src_data_rank=None
    )
