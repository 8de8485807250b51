"""Packets to decode for given frames: arithmetic on packet times, without file or decoder.

    decode order    I0  P3  B1  B2 | I6  B4  B5  P9  B7  B8 | …     (numbers: presentation order)
    frame 7 needs                    I6          P9  B7             from its key frame to itself

Frames are numbered by presentation time over the packets that are shown. Packets flagged `discard`,
which an edit list removes, are decoded because others refer to them, but not counted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

LONGEST_REORDER = 16
"""Frames by which a codec may move a frame in the order of decoding."""


class PacketFacts(NamedTuple):
    """Metadata of one packet in the container."""

    pts: int | None
    key: bool
    discard: bool


@dataclass(frozen=True)
class PacketRange:
    """Packets `first` to `last` (inclusive), starting at a key frame, and the pts to keep."""

    first: int
    last: int
    wanted: frozenset[int]


@dataclass(frozen=True)
class FrameIndex:
    """Presentation time and packet of each frame."""

    pts: tuple[int, ...]
    """Presentation time of each frame, ascending."""
    packet: tuple[int, ...]
    """Position of each frame's packet in decode order."""
    keys: tuple[int, ...]
    """Positions of the key packets, ascending."""
    key_pts: tuple[int, ...]
    """Presentation time of each key packet."""

    @property
    def has_open_gops(self) -> bool:
        """True if frames that follow a key packet are shown before it."""
        pts_of_key = dict(zip(self.keys, self.key_pts))
        latest: int | None = None
        for position, pts in sorted(zip(self.packet, self.pts)):
            latest = pts_of_key.get(position, latest)
            if latest is not None and pts < latest:
                return True
        return False

    def ranges(self, indices: Iterable[int]) -> list[PacketRange]:
        """Return the packet ranges to decode for the frames; overlapping ranges are merged."""
        ranges: list[PacketRange] = []
        needs = sorted((self._key_before(i), self.packet[i], self.pts[i]) for i in set(indices))
        for first, last, pts in needs:
            if ranges and first <= ranges[-1].last:
                before = ranges[-1]
                ranges[-1] = PacketRange(
                    before.first, max(before.last, last), before.wanted | {pts}
                )
            else:
                ranges.append(PacketRange(first, last, frozenset([pts])))
        return ranges

    def _key_before(self, index: int) -> int:
        """Return the key packet at which decoding of a frame must start.

        A frame that follows a key packet but is shown before it may refer to the previous group of
        pictures (open GOP), so decoding starts at the key packet before.
        """
        k = bisect_right(self.keys, self.packet[index]) - 1
        while k > 0 and self.key_pts[k] > self.pts[index]:
            k -= 1
        return self.keys[k]


def build_index(packets: Sequence[PacketFacts]) -> FrameIndex | None:
    """Build the index from all packets of a video stream.

    Args:
        packets: Metadata in decode order.

    Returns:
        The index; None if packets do not determine the frames: times are missing or duplicated, or
        frames come before the first key frame.
    """
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
    packet_of = tuple(position for _, position in shown)
    return FrameIndex(pts=pts, packet=packet_of, keys=keys, key_pts=key_pts)


def display_times(decoded: Sequence[int | None]) -> list[int]:
    """Return the times at which decoded frames are shown, ascending; empty if they are unknown.

    Frames whose times were derived from their packets' order have them exchanged with neighbours.
    Times further apart mean that the clock was set back.

    >>> display_times([1, 2, 4, 3, 5])
    [1, 2, 3, 4, 5]
    """
    known = sorted(pts for pts in decoded if pts is not None)
    place = {pts: i for i, pts in enumerate(known)}
    moves = [abs(place[pts] - i) for i, pts in enumerate(decoded) if pts is not None]
    if len(place) != len(decoded) or max(moves, default=0) > LONGEST_REORDER:
        return []
    return known


def frame_rate(header: float, pts: Sequence[int], base: Fraction) -> float:
    """Return the average frame rate; 0 if it is unknown.

    Times are rounded to the container's ticks, so the header's rate is the more exact one, unless
    it is a different rate altogether.

    Args:
        header: Rate that the container states; 0 if it states none.
        pts: Presentation time of each frame, ascending.
        base: Seconds of one tick.

    >>> frame_rate(1000.0, [0], Fraction(1, 1000))  # a WebM of one frame: the rate of its clock
    0.0
    """
    measured = 0.0
    if len(pts) > 1 and pts[-1] > pts[0]:
        measured = float((len(pts) - 1) / ((pts[-1] - pts[0]) * base))
    elif header == 1 / base and header >= 1000:
        return 0.0
    agrees = measured == 0 or abs(header - measured) <= 0.02 * measured
    return header if header > 0 and agrees else measured


def pts_to_seconds(pts: Sequence[int], base: Fraction, start: Fraction) -> tuple[float, ...]:
    """Return `float(time * base - start)` for each time, exactly, with integer arithmetic.

    Fractions would be slow: a long video has thousands of frames.
    """
    ticks, origin = base.numerator * start.denominator, start.numerator * base.denominator
    unit = base.denominator * start.denominator
    return tuple((time * ticks - origin) / unit for time in pts)
