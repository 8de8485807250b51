"""Picture types and starts of groups, read from the packets themselves.

Containers flag packets as key frames that are none: placeholders of packed Xvid, every packet of an
MP4 file without a sync table. MPEG-4 part 2 decodes garbage from there without an error. Their
times may be wrong too: AVI stores none, and FFmpeg derives them from the order of the packets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from av.packet import Packet
from av.video.stream import VideoStream

PICTURE_START = {
    "mpeg4": b"\x00\x00\x01\xb6",
    "mpeg2video": b"\x00\x00\x01\x00",
    "mpeg1video": b"\x00\x00\x01\x00",
}
"""Start codes of a picture in the MPEG codecs without NAL units."""
LARGEST_PLACEHOLDER = 19
"""Bytes of the largest MPEG-4 packet that FFmpeg's decoder takes as the placeholder of a picture
in the packet before."""
H264_SLICE, H264_IDR, H264_SEI = 1, 5, 6
HEVC_FIRST_IRAP, HEVC_LAST_IRAP, HEVC_LAST_SLICE, HEVC_SEI = 16, 23, 31, 39
NAL_HEADER = {"h264": 1, "hevc": 2}
"""Bytes of the header of a NAL unit."""
UNIT_BYTES = 2048
"""Bytes of a NAL unit that are looked at; x264 begins with a message of 700."""
RECOVERY_POINT, DISPLAY_ORIENTATION = 6, 47
VP8_INTER, VP8_SHOWN = 0x01, 0x10
"""Bits of the first byte of a VP8 frame; libvpx writes references that are not shown."""


class BitstreamCheck:
    """Compares a container's key flags and times with the packets themselves.

    Args:
        codec: FFmpeg's name of the codec.
        extradata: The codec's header in the container.
        reorders: True if the codec's header or its first frames show that frames are reordered.
        stores_times: False if the container stores no presentation times.
    """

    def __init__(
        self, codec: str, extradata: bytes | None, *, reorders: bool, stores_times: bool
    ) -> None:
        self._codec = codec
        self._length_size = nal_length_size(codec, extradata)
        self._reorders = reorders
        self._stores_times = stores_times
        self._types: list[str] = []  # of the pictures in each packet, if the codec shows them
        self._has_b_slices = False
        self.orients_first_frame = False
        """True if the first packet holds an orientation, which others need not repeat."""

    def is_key(self, packet: Packet[VideoStream], *, is_first: bool) -> bool:
        """Return True if decoding may start here; call it for each packet in order."""
        flagged = packet.is_keyframe
        if self._codec in PICTURE_START:
            self._types.append(mpeg_picture_types(self._codec, bytes(packet)))
            starts = self._types[-1].startswith("I")
        else:
            if self._codec == "h264" and not (self._stores_times or self._has_b_slices):
                self._has_b_slices = has_b_slices(bytes(packet), self._length_size)
            if self._codec == "vp8":
                return flagged and bool(packet.size) and not memoryview(packet)[0] & VP8_INTER
            if self._codec not in NAL_HEADER:
                return flagged
            if is_first:
                self.orients_first_frame = has_orientation(
                    self._codec, bytes(packet), self._length_size
                )
            if not flagged:
                return False
            starts = starts_group(self._codec, bytes(packet), self._length_size)
        return flagged and (starts or is_first)

    def is_hidden(self, packet: Packet[VideoStream]) -> bool:
        """Return True if the packet's frame is decoded, but never shown."""
        return self._codec == "vp8" and bool(packet.size) and not memoryview(packet)[0] & VP8_SHOWN

    @property
    def is_packed(self) -> bool:
        """True if MPEG-4 pictures wait in the packets of others."""
        return self._codec == "mpeg4" and any(len(pictures) > 1 for pictures in self._types)

    def order_is_certain(self, pts: Sequence[int]) -> bool:
        """Return False if decoding may show the frames in another order than their times."""
        if self._codec in PICTURE_START:
            order = sorted(range(len(pts)), key=pts.__getitem__)
            types = [pictures[:1] for pictures in self._types]
            return all(types) and mpeg_display_order(types) == order
        if not self._stores_times:
            return not self._has_b_slices
        return not self._reorders or is_reordered(pts)


def is_reordered(pts: Sequence[int]) -> bool:
    """Return True if the times of packets in decode order descend, or are too few to tell."""
    return len(pts) < 3 or any(a > b for a, b in pairwise(pts))


def mpeg_picture_types(codec: str, packet: bytes) -> str:
    """Return the type (I, P or B) of each picture in a packet of a codec of `PICTURE_START`."""
    code, types = PICTURE_START[codec], ""
    if codec == "mpeg4" and len(packet) <= LARGEST_PLACEHOLDER:
        return types
    place = packet.find(code)
    while 0 <= place < len(packet) - 5:
        if codec == "mpeg4":
            types += "IPBP"[packet[place + 4] >> 6]
        else:
            types += "?IPBI???"[packet[place + 5] >> 3 & 7]
        place = packet.find(code, place + 4)
    return types


def mpeg_display_order(types: Sequence[str]) -> list[int]:
    """Return the positions of pictures in decode order, sorted by when they are shown.

    >>> mpeg_display_order("IPBBPBB")
    [0, 2, 3, 1, 5, 6, 4]
    """
    shown: list[int] = []
    reference: int | None = None  # shown when the next reference arrives
    for position, kind in enumerate(types):
        if kind == "B":
            shown.append(position)
            continue
        if reference is not None:
            shown.append(reference)
        reference = position
    return shown if reference is None else [*shown, reference]


def nal_length_size(codec: str, extradata: bytes | None) -> int:
    """Return the bytes of the length before each NAL unit; 0 if start codes separate the units."""
    place = 4 if codec == "h264" else 21
    if extradata is None or len(extradata) <= place or extradata[0] != 1:
        return 0
    return (extradata[place] & 3) + 1


def nal_units(packet: bytes, length_size: int) -> Iterator[bytes]:
    """Yield the first bytes of each NAL unit in a packet."""
    if length_size:
        place = 0
        while place + length_size < len(packet):
            start = place + length_size
            place = start + max(int.from_bytes(packet[place:start], "big"), 1)
            yield packet[start : min(place, start + UNIT_BYTES)]
        return
    place = packet.find(b"\x00\x00\x01")
    while 0 <= place < len(packet) - 3:
        yield packet[place + 3 : place + 3 + UNIT_BYTES]
        place = packet.find(b"\x00\x00\x01", place + 3)


def starts_group(codec: str, packet: bytes, length_size: int) -> bool:
    """Return True if an H.264 or HEVC packet starts a group.

    In H.264 that is an IDR picture, or an I picture with a recovery point; in HEVC a picture for
    intra random access.
    """
    if codec == "hevc":
        types = (nal_type(codec, unit) for unit in nal_units(packet, length_size))
        first = next((kind for kind in types if kind <= HEVC_LAST_SLICE), 0)
        return HEVC_FIRST_IRAP <= first <= HEVC_LAST_IRAP
    has_recovery_point = False
    for unit in nal_units(packet, length_size):
        kind = nal_type(codec, unit)
        if kind == H264_IDR:
            return True
        if kind == H264_SEI:
            has_recovery_point |= RECOVERY_POINT in sei_types(unit[1:])
        if kind == H264_SLICE:
            return has_recovery_point and h264_slice_type(unit) in (2, 7)
    return False


def has_b_slices(packet: bytes, length_size: int) -> bool:
    """Return True if the first slice of an H.264 packet is of type B."""
    for unit in nal_units(packet, length_size):
        if unit[0] & 31 in (H264_SLICE, H264_IDR):
            return h264_slice_type(unit) in (1, 6)
    return False


def sei_types(payload: bytes) -> Iterator[int]:
    """Yield the types of the messages in an SEI unit, as far as its first bytes show them."""
    place = 0
    while place + 1 < len(payload) and payload[place] != 0x80:
        values = []
        for _ in range(2):  # type and size: each 255 adds to the next byte
            value = 0
            while place < len(payload) and payload[place] == 255:
                value, place = value + 255, place + 1
            if place >= len(payload):
                return
            values.append(value + payload[place])
            place += 1
        yield values[0]
        place += values[1]


def has_orientation(codec: str, packet: bytes, length_size: int) -> bool:
    """Return True if an H.264 or HEVC packet says how its frame is shown."""
    sei_unit = {"h264": H264_SEI, "hevc": HEVC_SEI}[codec]
    return any(
        nal_type(codec, unit) == sei_unit
        and DISPLAY_ORIENTATION in sei_types(unit[NAL_HEADER[codec] :])
        for unit in nal_units(packet, length_size)
    )


def nal_type(codec: str, unit: bytes) -> int:
    """Return the type of an H.264 or HEVC unit."""
    return unit[0] & 31 if codec == "h264" else unit[0] >> 1 & 63


def h264_slice_type(unit: bytes) -> int:
    """Return `slice_type`, the second exponential-Golomb number of a slice header."""
    bits = "".join(f"{byte:08b}" for byte in unit[1:12])
    value = -1
    for _ in range(2):  # first_mb_in_slice, slice_type
        zeros = len(bits) - len(bits.lstrip("0"))
        number, bits = bits[zeros : 2 * zeros + 1], bits[2 * zeros + 1 :]
        value = int(number, 2) - 1 if number else -1
    return value
