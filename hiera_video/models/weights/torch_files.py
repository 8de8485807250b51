"""Read torch files of other training code: their tensors, and none of their objects.

torch's restricted unpickler (`weights_only=True`) refuses a file at the first name of a class or
function that it does not allow. Training code stores such objects beside the weights: arguments
with paths, numpy numbers, a log's buffers, configurations. Here each of these names stands for an
empty class of this module while the file is read, so nothing that the file names is imported or
called. torch's own list of allowed names and its refusal of `os` and `sys` stay as they are.
"""

from __future__ import annotations

import argparse
import logging
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar

import torch

from hiera_video.utils.text_files import printable

logger = logging.getLogger(__name__)

MAX_NAMES = 160
"""Characters of the skipped names in the log."""


class UnreadObject:
    """Takes the place of an object from outside torch; ignores its arguments and its state."""

    __slots__ = ()
    name: ClassVar[str] = "object"
    """Class or function that the file names."""

    def __new__(cls, *_: object) -> UnreadObject:
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


class _UnreadMapping:
    """Makes a plain mapping in the place of a subclass of dict; the unpickler fills no other."""

    def __new__(cls, *_: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


class _UnreadList:
    """Makes a list in the place of a deque; the unpickler appends to nothing else."""

    def __new__(cls, *_: object) -> list[Any]:  # type: ignore[misc]
        return []


_CONTAINERS: dict[str, type] = {
    **dict.fromkeys(("defaultdict", "ConfigDict", "EasyDict", "CfgNode"), _UnreadMapping),
    "deque": _UnreadList,
}
"""Name of a container's class, without its module → what takes its place."""


def load_torch_file(path: Path) -> Any:
    """Return the contents of a torch file, with an `UnreadObject` for each foreign object.

    Files from before torch 1.6 are no archives; objects in them are refused, except
    `argparse.Namespace`, a bare record of options.

    Objects of other subclasses of dict and list than `_CONTAINERS` names cannot be skipped.

    Raises:
        Exception: torch's own errors, if the file is damaged or its objects cannot be skipped.
    """
    allowed: list[Any]
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except ValueError:  # not an archive
        allowed = [argparse.Namespace]
    else:
        allowed = [(_substitute(name), name) for name in names]
        if names:
            skipped = printable(", ".join(sorted(names)))[:MAX_NAMES]
            logger.info("%s: skipped objects made by %s", path, skipped)
    known = torch.serialization.get_safe_globals()  # which the context would remove at its end
    with torch.serialization.safe_globals([one for one in allowed if one not in known]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _substitute(name: str) -> type:
    """Return a new class that takes the place of the class or function `name`."""
    module, own = (printable(part)[:MAX_NAMES] for part in name.rpartition(".")[::2])
    names = {"__slots__": (), "__module__": module, "name": f"{module}.{own}"}
    return type(own, (_CONTAINERS.get(own, UnreadObject),), names)
