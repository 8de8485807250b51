"""Packets of a video stream: scanned once for their times, then read from any key packet on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from av.packet import Packet
from av.stream import Discard
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from hiera_video.errors import DecodeError
from hiera_video.video.bitstream import PICTURE_START, BitstreamCheck, is_reordered
from hiera_video.video.container import (
    decode_errors,
    is_fragmented,
    matroska_size,
    raw_stream_codec,
    riff_is_complete,
    video_stream,
)
from hiera_video.video.frame_index import PacketFacts
from hiera_video.video.mp4_tables import DeclaredCounts, too_many_streams
from hiera_video.video.packet_index import DISCARD, KEY, NONE, PacketTable
from hiera_video.video.reader import Closeable, Limits, unreadable
from hiera_video.video.sources import ByteSource

KEPT_BYTES = 64 << 20
"""Packets up to this size in total stay in memory, so that nothing is read twice."""
FIRST_BYTES = 4096
"""Bytes of the first packet in which an encoder may write its name."""
STORES_TIMES = ("mov", "matroska")
"""Containers that store the times of every packet; others derive them, and differently after a
seek."""
STORES_DECODE_TIMES = ("avi", "asf")
"""Containers without presentation times: FFmpeg derives them, wrongly for B-frames of H.264."""
PacketTimes = tuple[int | None, int | None]
"""Presentation and decode time."""


class StreamFacts(NamedTuple):
    """Properties of a stream in which other decoders go wrong."""

    profile: str | None
    pixel_format: str | None
    is_full_range: bool
    """True if 0 is black and 255 is white in a format that does not say so, as yuvj420p does."""
    first_bytes: bytes
    """The codec's header and the first packet, or their beginning."""
    is_fragmented: bool
    is_reordered: bool
    has_false_keys: bool
    """True if an MP4 file flags more packets as key than start a group."""
    hides_packets: bool


class PacketSource(Closeable):
    """Packets of an open container's video stream, numbered in decode order from 0.

    Args:
        source: Where the bytes come from.
        limits: Size limits.
        kept_bytes: Keep the packets in memory if they take no more than this.
        table: The packets from a packet index; the file is then not scanned.

    Raises:
        DecodeError: The file cannot be opened or is incomplete.
    """

    def __init__(
        self, source: ByteSource, limits: Limits, kept_bytes: int, table: PacketTable | None = None
    ) -> None:
        self._source = source
        self._path = path = source.path
        self._limits = limits
        self._kept: list[Packet[VideoStream]] | None = []
        self._open = ExitStack()
        source.check(limits)
        try:
            with decode_errors(path, "container", "cannot be opened as a video"):
                DeclaredCounts(path, source.read, limits).check()
                self.container = self._open.enter_context(source.open(limits))
        except DecodeError as error:
            if (codec := raw_stream_codec(source.read(16)[0])) is None:
                raise
            message = f"a raw {codec} stream without a container stores no frame times; "
            remedy = "encode it into an MP4 file: ffmpeg -i FILE FILE.mp4"
            raise unreadable(path, "container", message + remedy) from error
        with self.close_on_error():
            if len(self.container.streams) > limits.max_streams:
                raise too_many_streams(path, limits)
            self.stream = video_stream(self.container, path)
            self.index = self.stream.index
            self.decoder = self._decoder()
            self.codec = self.decoder.codec.canonical_name
            for stream in self.container.streams:
                if stream.index != self.index:
                    stream.discard = Discard.all
            self.order_is_certain = True
            """False if decoding all packets may show their frames in another order."""
            self.stored = table if table is not None and self._can_use(table) else None
            """The packets from the packet index, if it can be used."""
            self.orients_first_frame = False
            """True if the first frame holds an orientation, which others need not repeat."""
            if self.stored is not None:
                self._use_table(self.stored)
                return
            with decode_errors(path, "truncated", "cannot be read to its end"):
                self._scan(kept_bytes)

    def _decoder(self) -> VideoCodecContext:
        decoder = self.stream.codec_context
        if decoder is None:
            message = "no decoder for its codec is available; convert it to H.264"
            raise unreadable(self._path, "codec", message)
        return decoder

    def _scan(self, kept_bytes: int) -> None:
        self.facts: list[PacketFacts] = []
        self.is_plain = True
        """True if each packet is one picture, none is damaged and none changes the decoder's
        parameters, so that decoding can start at any key packet."""
        self._times: list[PacketTimes] = []
        indexed, count = len(self.stream.index_entries), 0
        check = BitstreamCheck(
            self.codec,
            self.decoder.extradata,
            reorders=self.decoder.has_b_frames,
            stores_times=not self._format_is(STORES_DECODE_TIMES),
        )
        for packet in self.container.demux(self.stream):
            count += packet.size > 0 or packet.dts is not None  # PyAV's final packet has neither
            if packet.size == 0:
                continue
            if packet.has_sidedata("encryption_info"):
                message = "its video is encrypted; decrypt it, or download it without protection"
                raise unreadable(self._path, "encrypted", message)
            has_new_parameters = bool(self.facts) and packet.has_sidedata("new_extradata")
            self.is_plain = self.is_plain and not packet.is_corrupt and not has_new_parameters
            is_key = check.is_key(packet, is_first=not self.facts)
            self._times.append((packet.pts, packet.dts))
            is_hidden = packet.is_discard or check.is_hidden(packet)
            self.facts.append(PacketFacts(packet.pts, is_key, is_hidden))
            if self._kept is not None:
                self._kept.append(packet)
                kept_bytes -= packet.size
                if kept_bytes < 0:
                    self._kept = None
        self._position_of = {}
        if self._kept is None:
            self._position_of = first_positions(self._times)
        self._check_complete(count, indexed)
        if not self.facts:
            raise unreadable(self._path, "no_frames", "its video stream has no packets")
        self.is_plain = self.is_plain and not check.is_packed
        self.orients_first_frame = check.orients_first_frame
        pts = [time for time, _ in self._times if time is not None]
        self.order_is_certain = len(pts) == len(self._times) and check.order_is_certain(pts)

    def _can_use(self, table: PacketTable) -> bool:
        reorders = self.decoder.has_b_frames
        return self.codec not in PICTURE_START and (
            not reorders or is_reordered(table.pts.tolist())
        )

    def _use_table(self, table: PacketTable) -> None:
        self.facts, self.is_plain, self._kept = [], True, None
        self._times = table.times()
        self._position_of = first_positions(self._times)

    def table(self) -> PacketTable | None:
        """Return the packets for a packet index; None if the file must be scanned each time."""
        can_index = self._format_is(STORES_TIMES) and self.codec not in PICTURE_START
        if self.orients_first_frame or not (can_index and self.is_plain and self.order_is_certain):
            return None
        kinds = (KEY * packet.key + DISCARD * packet.discard for packet in self.facts)
        return PacketTable(
            pts=np.array([pts for pts, _ in self._times], np.int64),
            dts=np.array([NONE if dts is None else dts for _, dts in self._times], np.int64),
            kinds=np.fromiter(kinds, np.uint8),
        )

    def stream_facts(self) -> StreamFacts:
        """Return facts about the stream for the trial of other decoders."""
        pts = [time for time, _ in self._times if time is not None]
        first, is_mp4 = next(self.packets(0, 0), None), self._format_is(("mov",))
        flagged = sum(entry.is_keyframe for entry in self.stream.index_entries)
        return StreamFacts(
            profile=self.decoder.profile,
            pixel_format=self.decoder.pix_fmt,
            is_full_range=self.decoder.color_range == ColorRange.JPEG
            and str(self.decoder.pix_fmt).startswith("yuv4"),
            first_bytes=(self.decoder.extradata or b"") + (bytes(first or b"")[:FIRST_BYTES]),
            is_fragmented=is_mp4 and is_fragmented(self._source.read),
            is_reordered=any(a > b for a, b in pairwise(pts)),
            has_false_keys=is_mp4 and flagged > sum(packet.key for packet in self.facts),
            hides_packets=any(packet.discard for packet in self.facts),
        )

    def _format_is(self, names: Sequence[str]) -> bool:
        return any(name in self.container.format.name for name in names)

    def _check_complete(self, count: int, indexed: int) -> None:
        """Compare the number of packets, or of bytes, with the container's header.

        AVI counts empty chunks, which repeat a frame and are no packets. If packets are missing,
        its size and the `indexed` packets, read from the end of the file, say whether it is whole.
        """
        name, promised = self.container.format.name, 0
        if "mov" in name:
            promised = len(self.stream.index_entries)
        elif "avi" in name:
            promised = self.stream.frames
            if count < promised and riff_is_complete(self._source.read):
                promised = indexed
        if count < promised:
            message = f"has {count} of {promised} packets; download or create the file again"
            raise unreadable(self._path, "truncated", message)
        if "matroska" in name:
            head, size = self._source.read(4096)
            if size < (promised := matroska_size(head)):
                message = f"has {size} of {promised} bytes; download or create the file again"
                raise unreadable(self._path, "truncated", message)

    def packets(self, first: int, last: int) -> Iterator[Packet[VideoStream]]:
        """Yield packets `first`, a key packet, to `last` (inclusive); fewer if the file changed."""
        if self._kept is not None:
            yield from self._kept[first : last + 1]
            return
        if self._format_is(STORES_TIMES):
            pts, dts = self._times[first]
            # In containers that seek by pts, the key frame's dts may find an earlier key frame:
            # more to read, but never too late.
            target = dts if dts is not None else pts
            assert target is not None
            self.container.seek(target, stream=self.stream)
            read = self._read_from(first, last)
            packet = next(read, None)
            if packet is not None:
                yield packet
                yield from read
                return
        self._reopen()  # not seekable, or the seek went past the key frame
        yield from self._read_from(first, last)

    def _read_from(self, first: int, last: int) -> Iterator[Packet[VideoStream]]:
        """Yield packets from the current position; nothing if that is behind `first`."""
        started = False
        for packet in self.container.demux(self.stream):
            if packet.size == 0:
                continue
            position = self._position_of.get((packet.pts, packet.dts))
            if position is None or position > (last if started else first):
                return
            started = True
            if position >= first:
                yield packet
            if position == last:
                return

    def _reopen(self) -> None:
        self._open.close()
        self.container = self._open.enter_context(self._source.open(self._limits))
        stream = self.container.streams[self.index]
        assert isinstance(stream, VideoStream)
        self.stream = stream

    def close(self) -> None:
        """Close the container and drop the packets."""
        self._kept = None
        self._open.close()


def first_positions(times: Sequence[PacketTimes]) -> dict[PacketTimes, int]:
    """Return the first packet of each time: a hidden frame of VP8 may have that of the next.

    >>> first_positions([(0, 0), (33, 33), (33, 33)])
    {(33, 33): 1, (0, 0): 0}
    """
    return {pair: position for position, pair in reversed(list(enumerate(times)))}
