"""Paths shortened for people: as much of each as tells it from the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath


def short_paths(paths: Iterable[str]) -> dict[str, str]:
    """Return for each path the shortest end of it that no other path has.

    >>> short_paths(["a/run/8.mp4", "a/jump/8.mp4", "a/run/9.mp4"])
    {'a/run/8.mp4': 'run/8.mp4', 'a/jump/8.mp4': 'jump/8.mp4', 'a/run/9.mp4': '9.mp4'}
    """
    parts = {path: PurePath(path).parts for path in paths}
    found: dict[str, str] = {}
    left, length = list(parts), 1
    while left:
        groups: dict[Sequence[str], list[str]] = {}
        for path in left:
            groups.setdefault(parts[path][-length:], []).append(path)
        left = []
        for tail, members in groups.items():
            whole = len(members) > 1 and len(tail) < length  # the same path, spelt differently
            if len(members) == 1 or whole:
                found |= {path: str(PurePath(*tail)) if tail else path for path in members}
            else:
                left += members
        length += 1
    return {path: found[path] for path in parts}
