"""A checkpoint's tensors, divided among the processes that write it, and put together again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor

from hiera_video.train.parallel import whole


def file_names(part: int, parts: int) -> tuple[str, str]:
    """Of the weights and of the rest.

    >>> file_names(0, 1), file_names(1, 2)
    (('model.safetensors', 'state.pt'), ('model-00002-of-00002.safetensors', 'state-00002-of-00002.pt'))
    """
    suffix = "" if parts == 1 else f"-{part + 1:05d}-of-{parts:05d}"
    return f"model{suffix}.safetensors", f"state{suffix}.pt"


def owners(sizes: Sequence[int], parts: int) -> list[int]:
    """Which part each tensor goes to: the largest first, each to the part that has least.

    >>> owners([1, 5, 2, 3], 2)
    [0, 0, 1, 1]
    """
    loads, found = [0] * parts, [0] * len(sizes)
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        found[place] = loads.index(min(loads))
        loads[found[place]] += sizes[place]
    return found


def tensors(tree: dict[Any, Any]) -> Iterator[Tensor]:
    """Those of a nested dictionary, in its order."""
    for value in tree.values():
        if isinstance(value, dict):
            yield from tensors(value)
        elif isinstance(value, Tensor):
            yield value


def take(tree: dict[Any, Any], part: int | None, parts: int) -> dict[Any, Any]:
    """What `part` writes of a nested dictionary: its tensors, whole and on the CPU; what is no tensor goes with the first.

    Every rank has to call this, also one that writes nothing (None): sharded tensors are gathered one after the other,
    so that a device holds one of them at a time.
    """
    return _take(tree, part, iter(owners([value.numel() for value in tensors(tree)], parts)))


def _take(tree: dict[Any, Any], part: int | None, owner: Iterator[int]) -> dict[Any, Any]:
    taken: dict[Any, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            taken[key] = _take(value, part, owner)
        elif isinstance(value, Tensor):
            gathered = whole(value.detach())
            if next(owner) == part:
                taken[key] = gathered.cpu().contiguous()
        elif part == 0:
            taken[key] = value
    return taken


def join(taken: Iterable[dict[Any, Any]]) -> dict[Any, Any]:
    """The nested dictionary whose parts `taken` are."""
    joined: dict[Any, Any] = {}
    for part in taken:
        for key, value in part.items():
            joined[key] = join([joined.get(key, {}), value]) if isinstance(value, dict) else value
    return joined
