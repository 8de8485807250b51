"""The packets of a file's video stream: read through once for their times, then handed out from any key packet on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
from av.packet import Packet
from av.stream import Discard
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from hiera_video.video.container import decoding, matroska_promise, video_stream
from hiera_video.video.frame_index import PacketFacts
from hiera_video.video.packet_index import DISCARD, KEY, NONE, PacketTable
from hiera_video.video.reader import Closeable, Limits, unreadable
from hiera_video.video.sources import ByteSource

# Up to this size of a file's packets they stay in memory, and nothing is read twice.
KEPT_BYTES = 64 << 20
# Only these store every packet's times; elsewhere they are worked out on the way and differ after a seek.
STORES_TIMES = ("mov", "matroska")


class PacketSource(Closeable):
    """An open container and its video stream. PacketTable are numbered in decode order, from 0."""

    def __init__(
        self, source: ByteSource, limits: Limits, kept_bytes: int, known: PacketTable | None = None
    ) -> None:
        self._source = source
        self._path = path = source.path
        self._limits = limits
        self._kept: list[Packet[VideoStream]] | None = []
        self._open = ExitStack()
        source.check(limits)
        with decoding(path, "container", "cannot be opened as a video"):
            self.container = self._open.enter_context(source.opened(limits))
        with self.close_on_error():
            self.stream = video_stream(self.container, path)
            self.index = self.stream.index
            self.decoder = self._decoder()
            for stream in self.container.streams:
                if stream.index != self.index:
                    stream.discard = Discard.all
            if known is not None:
                self._recall(known)
                return
            with decoding(path, "truncated", "cannot be read to its end"):
                self._scan(kept_bytes)

    def _decoder(self) -> VideoCodecContext:
        decoder = self.stream.codec_context
        if decoder is None:
            raise unreadable(
                self._path, "codec", "holds video that no decoder here reads; convert it to H.264"
            )
        return decoder

    def _scan(self, kept_bytes: int) -> None:
        self.facts: list[PacketFacts] = []
        self.is_plain = True
        """No packet is damaged, and none changes the decoder's parameters, so that it can start at any key packet."""
        self._clock: list[tuple[int | None, int | None]] = []  # pts and dts
        seen = size = 0
        for packet in self.container.demux(self.stream):
            seen += (
                packet.size > 0 or packet.dts is not None
            )  # what PyAV adds at the end has neither
            if packet.size == 0:
                continue
            changes = bool(self.facts) and packet.has_sidedata("new_extradata")
            self.is_plain = self.is_plain and not packet.is_corrupt and not changes
            self._clock.append((packet.pts, packet.dts))
            self.facts.append(PacketFacts(packet.pts, packet.is_keyframe, packet.is_discard))
            size += packet.size
            if self._kept is not None:
                self._kept.append(packet)
                if size > kept_bytes:
                    self._kept = None
        self._where = (
            {} if self._kept is not None else {times: i for i, times in enumerate(self._clock)}
        )
        self._check_complete(seen)
        if not self.facts:
            raise unreadable(
                self._path, "no_frames", "holds a video stream without a single packet"
            )

    def _recall(self, known: PacketTable) -> None:
        """What a scan found when the file was as it is now."""
        self.facts, self.is_plain, self._kept = [], True, None
        self._clock = known.clock()
        self._where = {times: i for i, times in enumerate(self._clock)}

    def known(self) -> PacketTable | None:
        """What there is to write down for the next time; None where a file has to be read through each time."""
        if not self.is_plain or not self._stores_times:
            return None
        kinds = (KEY * packet.key + DISCARD * packet.discard for packet in self.facts)
        return PacketTable(
            pts=np.array([pts for pts, _ in self._clock], np.int64),
            dts=np.array([NONE if dts is None else dts for _, dts in self._clock], np.int64),
            kinds=np.fromiter(kinds, np.uint8),
        )

    @property
    def _stores_times(self) -> bool:
        return any(name in self.container.format.name for name in STORES_TIMES)

    def _check_complete(self, seen: int) -> None:
        """Containers that say at the start how much there is show when the end is missing."""
        name, promised = self.container.format.name, 0
        if "mov" in name:
            promised = len(self.stream.index_entries)
        elif "avi" in name:
            promised = self.stream.frames
        if seen < promised:
            raise unreadable(
                self._path,
                "truncated",
                f"has {seen} of {promised} packets; fetch or make the file again",
            )
        if "matroska" in name:
            head, there = self._source.head(4096)
            if there < (promised := matroska_promise(head)):
                raise unreadable(
                    self._path,
                    "truncated",
                    f"has {there} of {promised} bytes; fetch or make the file again",
                )

    def packets(self, first: int, last: int) -> Iterator[Packet[VideoStream]]:
        """PacketTable `first` to `last`, both included; `first` is a key packet. Fewer where the file has changed."""
        if self._kept is not None:
            yield from self._kept[first : last + 1]
            return
        if self._stores_times:
            pts, dts = self._clock[first]
            # where the container's index counts pts, the key frame's dts may point before it: more to read, never wrong
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
        """PacketTable `first` to `last` from where the container stands; none at all if it stands behind `first`."""
        started = False
        for packet in self.container.demux(self.stream):
            if packet.size == 0:
                continue
            position = self._where.get((packet.pts, packet.dts))
            if position is None or position > (last if started else first):
                return
            started = True
            if position >= first:
                yield packet
            if position == last:
                return

    def _reopen(self) -> None:
        self._open.close()
        self.container = self._open.enter_context(self._source.opened(self._limits))
        stream = self.container.streams[self.index]
        assert isinstance(stream, VideoStream)
        self.stream = stream

    def close(self) -> None:
        self._kept = None
        self._open.close()
