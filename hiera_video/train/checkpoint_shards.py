"""Sharded checkpoints: divide the tensors among the processes that write them, and merge them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor

from hiera_video.train.parallel import gather_tensor

Tree = dict[Any, Any]
"""A nested dictionary of tensors and plain values, such as an optimizer's state."""


def file_names(shard: int, num_shards: int) -> tuple[str, str]:
    """Return the file names of a shard's weights and training state.

    >>> file_names(0, 1)
    ('model.safetensors', 'state.pt')
    >>> file_names(1, 2)
    ('model-00002-of-00002.safetensors', 'state-00002-of-00002.pt')
    """
    suffix = "" if num_shards == 1 else f"-{shard + 1:05d}-of-{num_shards:05d}"
    return f"model{suffix}.safetensors", f"state{suffix}.pt"


def assign_shards(sizes: Sequence[int], num_shards: int) -> list[int]:
    """Return the shard of each tensor: largest first, each to the smallest shard so far.

    >>> assign_shards([1, 5, 2, 3], 2)
    [0, 0, 1, 1]
    """
    loads, assigned = [0] * num_shards, [0] * len(sizes)
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        assigned[index] = loads.index(min(loads))
        loads[assigned[index]] += sizes[index]
    return assigned


def iterate_tensors(tree: Tree) -> Iterator[Tensor]:
    """Yield the tensors of `tree` in its order."""
    for value in tree.values():
        if isinstance(value, dict):
            yield from iterate_tensors(value)
        elif isinstance(value, Tensor):
            yield value


def take_shard(tree: Tree, shard: int | None, num_shards: int) -> Tree:
    """Return a shard of `tree`: some of its tensors, unsharded and on the CPU.

    Values that are no tensors go to shard 0. Sharded parameters are gathered one after the other,
    so that a device holds one of them at a time.

    Args:
        tree: The full tree, the same on every rank. Every rank must call this function.
        shard: The shard to return; None for a rank that writes nothing.
        num_shards: Number of shards.
    """
    sizes = [value.numel() for value in iterate_tensors(tree)]
    return _take_shard(tree, shard, iter(assign_shards(sizes, num_shards)))


def _take_shard(tree: Tree, shard: int | None, assigned: Iterator[int]) -> Tree:
    taken: Tree = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            taken[key] = _take_shard(value, shard, assigned)
        elif isinstance(value, Tensor):
            gathered = gather_tensor(value.detach())
            if next(assigned) == shard:
                taken[key] = gathered.cpu().contiguous()
        elif shard == 0:
            taken[key] = value
    return taken


def merge_shards(shards: Iterable[Tree]) -> Tree:
    """Return the tree that `shards` were taken from."""
    merged: Tree = {}
    for shard in shards:
        for key, value in shard.items():
            if isinstance(value, dict):
                value = merge_shards([merged.get(key, {}), value])
            merged[key] = value
    return merged
