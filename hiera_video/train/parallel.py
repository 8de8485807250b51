"""Multi-device training: data parallel (DDP), or sharded weights, gradients and optimizer (FSDP2).

    shard_model(model, world)         # FSDP2: in place, before the optimizer is made
    wrapped = wrap_ddp(model, world)  # DDP: what the task calls
    with no_sync(wrapped): …          # all micro-batches of a step but the last

The parameters of a sharded model are of type `DTensor`; `gather_tensor` and `shard_like` convert
to and from plain tensors.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from hiera_video.errors import ConfigError
from hiera_video.models.compiled import transformer_blocks
from hiera_video.runtime.distributed import World

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor


def is_sharded_model(model: nn.Module) -> TypeGuard[FSDPModule]:
    """Return True for a model that `shard_model` has sharded."""
    # torch.distributed.fsdp takes two seconds to import: only where a model is sharded
    library: Any = sys.modules.get("torch.distributed.fsdp")
    return library is not None and isinstance(model, library.FSDPModule)


def is_sharded_tensor(tensor: Tensor) -> TypeGuard[DTensor]:
    """Return True for a `DTensor`."""
    library: Any = sys.modules.get("torch.distributed.tensor")
    return library is not None and isinstance(tensor, library.DTensor)


def shard_model(model: nn.Module, world: World) -> None:
    """Shard every parameter over the ranks, in place; a block is gathered only while it computes.

    Parameters are communicated in fp32 and cast by autocast, so that each rank computes what DDP
    would at every precision. Their half-precision copies live until the backward pass has used
    them, unless `model.checkpointing` is on.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    for block in transformer_blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def wrap_ddp(model: nn.Module, world: World, *, static_graph: bool = False) -> nn.Module:
    """Wrap `model` in DDP, which averages gradients over the ranks.

    A single process and a sharded model, which synchronises its own gradients, need no wrapper.

    Args:
        model: The model on its device.
        world: The ranks.
        static_graph: Every step uses the same parameters in the same order.

    Returns:
        The wrapped model, or `model` itself.
    """
    if world.size == 1 or is_sharded_model(model):
        return model
    ids = [world.device.index] if world.device.type == "cuda" else None
    if static_graph:
        model.register_forward_hook(require_visible_tensors)
    return nn.parallel.DistributedDataParallel(
        model, device_ids=ids, gradient_as_bucket_view=True, static_graph=static_graph
    )


def require_visible_tensors(model: nn.Module, inputs: Any, output: Any) -> None:
    """Raise `ConfigError` if DDP's static graph cannot find the tensors in a model's output.

    DDP attaches the first gradient synchronisation of a static graph to the output's tensors. Where
    it finds none, as in a dataclass, it silently skips synchronisation in the first step.
    """
    if not any(isinstance(leaf, Tensor) for leaf in tree_leaves(output)):
        raise ConfigError(
            f"train.static_graph=true: torch cannot find the tensors in {type(model).__name__}'s "
            f"{type(output).__name__}, so the first step's gradients would not be synchronised; "
            "set train.static_graph=false"
        )


@contextmanager
def no_sync(model: nn.Module) -> Iterator[None]:
    """Skip gradient synchronisation in the block, so that gradients accumulate on each rank."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        with model.no_sync():
            yield
    elif is_sharded_model(model):
        model.set_requires_gradient_sync(False)
        yield
        model.set_requires_gradient_sync(True)
    else:
        yield


@contextmanager
def unsharded_model(model: nn.Module, gather_into: nn.Module | None) -> Iterator[nn.Module]:
    """Yield a model that ranks may call a different number of times, as an evaluator does.

    Args:
        model: The model in training.
        gather_into: For a sharded model, a copy on the meta device: it receives the gathered
            weights on every rank, and is emptied when the block ends. Otherwise None.

    Yields:
        `gather_into` with the weights of `model`, or `model` itself.
    """
    if gather_into is None:
        yield model
        return
    values: dict[str, Tensor] = dict(chain(model.named_parameters(), model.named_buffers()))
    gather_into.to_empty(device=next(iter(values.values())).device)
    with torch.no_grad():
        for name, target in chain(gather_into.named_parameters(), gather_into.named_buffers()):
            target.copy_(gather_tensor(values[name]))
    try:
        yield gather_into
    finally:
        gather_into.to("meta")


def gather_tensor(value: Tensor) -> Tensor:
    """Return the full tensor; a sharded one is gathered, a collective that every rank must call."""
    return value.full_tensor() if is_sharded_tensor(value) else value


def shard_like(value: Tensor, reference: Tensor) -> Tensor:
    """Return this rank's shard of the full tensor `value`, or `value` if `reference` is plain."""
    if not is_sharded_tensor(reference):
        return value
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = reference.device_mesh, reference.placements
    return distribute_tensor(
        value.detach().to(reference.device), mesh, placements, src_data_rank=None
    )
