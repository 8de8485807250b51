"""Which packets to decode for which frames: arithmetic on packet times alone, no file and no decoder.

    decode order    I0  P3  B1  B2 | I6  B4  B5  P9  B7  B8 | …          (numbers: order of presentation)
    frame 7 needs                    I6          P9  B7                  from the key frame before it, up to itself

Frames are numbered by presentation time over the packets that are shown; packets flagged `discard` (what an edit list
trimmed away) are decoded for the others' sake and not counted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple


class PacketFacts(NamedTuple):
    """What the container says about one packet; a list of them is in decode order."""

    pts: int | None
    key: bool
    discard: bool


@dataclass(frozen=True)
class PacketRange:
    """Packets `first` to `last`, both included, beginning with a key frame, and the pts wanted of them."""

    first: int
    last: int
    wanted: frozenset[int]


@dataclass(frozen=True)
class FrameIndex:
    """Frame i has presentation time `pts[i]` and is packet `packet[i]` of the decode order."""

    pts: tuple[int, ...]
    packet: tuple[int, ...]
    keys: tuple[int, ...]
    """Key packets, ascending."""
    key_pts: tuple[int, ...]
    """Presentation time of each key packet."""

    @property
    def has_open_gops(self) -> bool:
        """Whether pictures that follow a key packet are shown before it."""
        position_of_key = dict(zip(self.keys, self.key_pts))
        latest: int | None = None
        for position, pts in sorted(zip(self.packet, self.pts)):
            latest = position_of_key.get(position, latest)
            if latest is not None and pts < latest:
                return True
        return False

    def runs(self, indices: Iterable[int]) -> list[PacketRange]:
        """The fewest stretches of packets that give all frames at `indices`; neighbours that overlap are joined."""
        runs: list[PacketRange] = []
        needs = sorted((self._key_before(i), self.packet[i], self.pts[i]) for i in set(indices))
        for first, last, pts in needs:
            if runs and first <= runs[-1].last:
                joined = runs[-1]
                runs[-1] = PacketRange(joined.first, max(joined.last, last), joined.wanted | {pts})
            else:
                runs.append(PacketRange(first, last, frozenset([pts])))
        return runs

    def _key_before(self, index: int) -> int:
        """The last key packet before the frame's that is not shown after it: pictures that follow a key packet but are
        shown before it may lean on the group before (open GOP)."""
        k = bisect_right(self.keys, self.packet[index]) - 1
        while k > 0 and self.key_pts[k] > self.pts[index]:
            k -= 1
        return self.keys[k]


def build_index(packets: Sequence[PacketFacts]) -> FrameIndex | None:
    """The index, or None where packets alone do not tell: times missing or doubled, or frames before the first key."""
    keys = tuple(position for position, packet in enumerate(packets) if packet.key)
    shown: list[tuple[int, int]] = []
    for position, packet in enumerate(packets):
        if packet.pts is None:
            return None
        if not packet.discard:
            shown.append((packet.pts, position))
    shown.sort()
    pts = tuple(time for time, _ in shown)
    if not shown or not keys or keys[0] != 0 or len(set(pts)) != len(pts):
        return None
    key_pts = tuple(packet.pts for packet in packets if packet.key and packet.pts is not None)
    if pts[0] < key_pts[0]:
        return None
    return FrameIndex(
        pts=pts, packet=tuple(position for _, position in shown), keys=keys, key_pts=key_pts
    )


def seconds_of(pts: Sequence[int], base: Fraction, start: Fraction) -> tuple[float, ...]:
    """`float(time * base - start)` of each time, in whole numbers: a long video has thousands."""
    ticks, origin = base.numerator * start.denominator, start.numerator * base.denominator
    unit = base.denominator * start.denominator
    return tuple((time * ticks - origin) / unit for time in pts)
