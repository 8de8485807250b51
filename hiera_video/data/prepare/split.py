"""Division of a data set into training, validation and test, by class, with sources together.

Pure: the same videos give the same parts in any order of the list, and a few more videos move few
others.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hiera_video.data.manifest.record import Label, Manifest, as_tuple

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "test", "val")
"""In the order in which a class gets its first source: one of two sources is tested."""


def split_parts(
    labels: Sequence[Label], sources: Sequence[str], shares: Mapping[Part, float]
) -> list[Part]:
    """Return the part of each video.

    All videos of a source are in one part. Each class is divided by `shares` as far as its sources
    permit, and each part gets a source of it if there are enough.

    Args:
        labels: Class of each video; several or none are permitted.
        sources: Source of each video.
        shares: Share of the videos held out for `val` and `test`; 0 or missing: none.

    >>> split_parts([0] * 6, list("aabcde"), {"val": 0.2, "test": 0.2})
    ['train', 'train', 'val', 'test', 'train', 'train']
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, source in enumerate(sources):
        members[source].append(index)
    counts = {
        source: Counter(index for row in rows for index in (as_tuple(labels[row]) or (-1,)))
        for source, rows in members.items()
    }
    classes = _classes(counts, shares)
    parts: dict[str, Part] = {}
    for source in sorted(members, key=lambda name: (-len(members[name]), _digest(name))):
        part = parts[source] = _choose(counts[source], classes)
        for label, count in counts[source].items():
            classes[label].add(part, count)
    return [parts[source] for source in sources]


def take_part(manifest: Manifest, parts: Sequence[Part], part: Part) -> Manifest:
    """Return the records of one part, with rows of their own."""
    chosen = [record for record, own in zip(manifest.records, parts) if own == part]
    records = tuple(replace(record, row=row) for row, record in enumerate(chosen))
    return replace(manifest, records=records, source=f"{manifest.source} ({part})")


@dataclass(kw_only=True)
class ClassShares:
    """State of one class while its sources are distributed."""

    size: int
    """Videos of the class."""
    sources: int
    """Sources that have no part yet."""
    wanted: dict[Part, float]
    """Videos that each part still lacks."""
    empty: set[Part]
    """Parts that should have a source of the class and have none."""

    def add(self, part: Part, count: int) -> None:
        """Give `part` a source with `count` videos of the class."""
        self.sources -= 1
        self.wanted[part] -= count
        self.empty.discard(part)


def _classes(
    counts: Mapping[str, Counter[int]], shares: Mapping[Part, float]
) -> dict[int, ClassShares]:
    classes: dict[int, ClassShares] = {}
    for label, size in sum(counts.values(), Counter[int]()).items():
        sources = sum(label in count for count in counts.values())
        held_out = [part for part in PARTS if shares.get(part)][: sources - 1]
        wanted = dict.fromkeys(PARTS, 0.0) | {
            part: max(size * shares[part], 1.0) for part in held_out
        }
        wanted["train"] = size - sum(wanted.values())
        classes[label] = ClassShares(
            size=size, sources=sources, wanted=wanted, empty={"train", *held_out}
        )
    return classes


def _choose(count: Counter[int], classes: Mapping[int, ClassShares]) -> Part:
    """Return the part that lacks most of a source's classes; `count` are its videos by class."""
    allowed = list(PARTS)
    for label in count:
        own = classes[label]
        empty = [part for part in allowed if part in own.empty]
        if empty and own.sources <= len(own.empty):  # each empty part needs one of those left
            allowed = empty

    def lack(part: Part) -> float:
        return sum(
            n * classes[label].wanted[part] / classes[label].size for label, n in count.items()
        )

    return max(allowed, key=lack)


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
