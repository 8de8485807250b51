"""Packet ranges as literals: no file, no decoder."""

from __future__ import annotations

from fractions import Fraction

from hiera_video.video.frame_index import (
    PacketFacts,
    PacketRange,
    build_index,
    display_times,
    frame_rate,
    pts_to_seconds,
)


def packets(
    *pts: int, keys: tuple[int, ...] = (0,), discard: tuple[int, ...] = ()
) -> list[PacketFacts]:
    return [PacketFacts(time, i in keys, i in discard) for i, time in enumerate(pts)]


def test_ranges_start_at_the_key_frame_before() -> None:
    # I0 P3 B1 B2 | I6 B4 B5 P9 B7 B8
    index = build_index(packets(0, 3, 1, 2, 6, 4, 5, 9, 7, 8, keys=(0, 4)))
    assert index is not None
    assert index.packet == (0, 2, 3, 1, 5, 6, 4, 8, 9, 7)
    assert index.ranges([7]) == [PacketRange(4, 8, frozenset([7]))]
    # open GOP: shown before the key packet that it follows
    assert index.has_open_gops
    assert index.ranges([4]) == [PacketRange(0, 5, frozenset([4]))]
    assert index.ranges([9, 1, 1]) == [
        PacketRange(0, 2, frozenset([1])),
        PacketRange(4, 7, frozenset([9])),
    ]
    # overlapping ranges are decoded once
    assert index.ranges([4, 7]) == [PacketRange(0, 8, frozenset([4, 7]))]


def test_closed_gops() -> None:
    index = build_index(packets(0, 2, 1, 3, 5, 4, keys=(0, 3)))
    assert index is not None and not index.has_open_gops
    assert index.ranges([4]) == [PacketRange(3, 5, frozenset([4]))]


def test_packets_that_do_not_determine_the_frames() -> None:
    assert build_index([]) is None
    assert build_index([PacketFacts(None, True, False)]) is None
    assert build_index(packets(0, 1, 1)) is None
    assert build_index(packets(0, 1, 2, keys=(1,))) is None
    assert build_index(packets(2, 0, 1)) is None


def test_discarded_packets_are_decoded_but_not_counted() -> None:
    index = build_index(packets(-2, -1, 0, 1, discard=(0, 1)))
    assert index is not None
    assert index.pts == (0, 1)
    assert index.ranges([0]) == [PacketRange(0, 2, frozenset([0]))]


def test_seconds_are_the_nearest_floats() -> None:
    base, start = Fraction(1, 15360), Fraction(7, 1000)
    pts = [0, 512, 123_457, 9_999_999]
    assert pts_to_seconds(pts, base, start) == tuple(float(time * base - start) for time in pts)


def test_times_of_frames_that_were_decoded() -> None:
    assert display_times([0, 2, 1, 3]) == [0, 1, 2, 3]
    assert display_times([0, None, 1]) == display_times([0, 1, 1]) == display_times([]) == []
    assert display_times([*range(100, 140), *range(40)]) == []  # the clock was set back


def test_frame_rates() -> None:
    ms = Fraction(1, 1000)
    assert frame_rate(30.0, [0, 33, 67, 100], ms) == 30.0
    assert frame_rate(60.0, [0, 33, 67, 100], ms) == 30.0
    assert frame_rate(0.0, [0, 100, 200], ms) == 10.0
    assert frame_rate(25.0, [], ms) == 25.0 and frame_rate(0.0, [7], ms) == 0.0
