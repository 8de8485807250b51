"""Picture types and group starts as literals: no file, no decoder."""

from __future__ import annotations

import av
import pytest

from hiera_video.video.bitstream import (
    BitstreamCheck,
    h264_slice_type,
    has_b_slices,
    is_reordered,
    mpeg_display_order,
    mpeg_picture_types,
    nal_length_size,
    nal_units,
    sei_types,
    starts_group,
)

START = b"\0\0\0\1"
SPS = b"\x67\x64\0\x0a"
IDR = b"\x65\x88\x84\0"  # first_mb 0, slice type 7 (I)
I_SLICE = b"\x41\x88\x84\0"
P_SLICE = b"\x41\x9a\x21\x6c"  # slice type 5
B_SLICE = b"\x01\x9e\x62\x6a"  # slice type 6
RECOVERY = b"\x06\x05\x03abc\x06\x01\x84\x80"  # user data, then a recovery point


def h264(*units: bytes) -> bytes:
    return b"".join(START + unit for unit in units)


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        ((SPS, IDR), True),
        ((RECOVERY, I_SLICE), True),
        ((I_SLICE,), False),  # later frames may refer to earlier ones
        ((RECOVERY, P_SLICE), False),  # a gradual refresh begins
        ((P_SLICE,), False),
        ((SPS,), False),
        ((), False),
    ],
)
def test_starts_of_h264_groups(packet: tuple[bytes, ...], expected: bool) -> None:
    assert starts_group("h264", h264(*packet), 0) is expected
    sized = b"".join(len(unit).to_bytes(4, "big") + unit for unit in packet)
    assert starts_group("h264", sized, 4) is expected


@pytest.mark.parametrize(
    ("kind", "expected"), [(1, False), (9, False), (16, True), (19, True), (21, True), (32, False)]
)
def test_starts_of_hevc_groups(kind: int, expected: bool) -> None:
    parameters, access_unit = bytes([33 << 1, 1]), bytes([kind << 1, 1])
    assert starts_group("hevc", h264(parameters, access_unit), 0) is expected


def test_h264_slice_types() -> None:
    slices = (IDR, I_SLICE, P_SLICE, B_SLICE)
    assert [h264_slice_type(unit) for unit in slices] == [7, 7, 5, 6]
    assert [has_b_slices(h264(RECOVERY, unit), 0) for unit in slices] == [False] * 3 + [True]
    assert h264_slice_type(b"\x41") == h264_slice_type(b"\x41\0\0") == -1


def test_nal_units_of_damaged_packets() -> None:
    assert list(nal_units(b"\0\0\0\0" * 3, 4)) == [b"\0", b"\0"]
    assert list(nal_units(b"\xff\xff\xff\xff\x65", 4)) == [b"\x65"]
    assert list(nal_units(b"\0\0\1", 0)) == []
    assert list(sei_types(b"\xff\xff")) == [] and list(sei_types(RECOVERY[1:])) == [5, 6]


def test_the_header_gives_the_size_of_lengths() -> None:
    assert nal_length_size("h264", b"\x01\x64\0\x0a\xff\xe1") == 4
    assert nal_length_size("hevc", bytes([1, *[0] * 20, 0xFD, 0])) == 2
    assert nal_length_size("h264", START + SPS) == nal_length_size("h264", None) == 0


def test_mpeg_picture_types() -> None:
    def vop(kind: int, size: int = 30) -> bytes:
        return b"\0\0\1\xb6" + bytes([kind << 6]) + bytes([255]) * (size - 5)

    header = b"\0\0\1\xb0\xf5"
    types = [
        mpeg_picture_types("mpeg4", packet)
        for packet in (header + vop(0), vop(1), vop(2), vop(3), vop(1) + vop(2), vop(0, size=6))
    ]
    assert types == ["I", "P", "B", "P", "PB", ""]
    pictures = [b"\0\0\1\0\0" + bytes([kind << 3, 0]) for kind in (1, 2, 3)]
    assert [mpeg_picture_types("mpeg2video", picture) for picture in pictures] == ["I", "P", "B"]
    assert mpeg_picture_types("mpeg1video", b"\0\0\1\xb7") == ""


def test_display_order() -> None:
    assert mpeg_display_order("IPBBPBB") == [0, 2, 3, 1, 5, 6, 4]
    assert mpeg_display_order("IPP") == [0, 1, 2] and mpeg_display_order("") == []


def test_reordered_times_descend() -> None:
    assert is_reordered([0, 3, 1, 2]) and not is_reordered([0, 1, 2, 3])
    assert is_reordered([0, 1])  # too few to tell


@pytest.mark.parametrize(
    ("first", "flagged", "is_key", "is_hidden"),
    [
        (0b1_000_0, True, True, False),
        (0b1_000_0, False, False, False),
        (0b1_000_1, True, False, False),  # an inter frame that the container flags as key
        (0b0_011_1, False, False, True),  # a reference for later frames
    ],
)
def test_first_byte_of_vp8(first: int, flagged: bool, is_key: bool, is_hidden: bool) -> None:
    packet = av.Packet(bytes([first, 0, 0]))
    packet.is_keyframe = flagged
    check = BitstreamCheck("vp8", None, reorders=False, stores_times=True)
    assert check.is_key(packet, is_first=True) == is_key
    assert check.is_hidden(packet) == is_hidden
    assert not BitstreamCheck("vp9", None, reorders=False, stores_times=True).is_hidden(packet)
