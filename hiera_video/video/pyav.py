"""PyAV reader: exact frames by presentation time, with as little decoding as possible.

Opening scans the packets without decoding, which gives every frame's time and the key frames.
`frames` then decodes from the key frame before each requested frame up to the frame itself, and
lets the decoder drop frames that are neither requested nor referred to. Where packets do not
determine the frames (see `frame_index.build_index`), or decoding fails to produce a frame that they
promise, it decodes the whole file from the start.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from hiera_video.errors import DecodeError
from hiera_video.utils.profiler import stage
from hiera_video.video.container import check_request, check_size, decode_errors, single_threaded
from hiera_video.video.frame_index import (
    FrameIndex,
    PacketRange,
    build_index,
    display_times,
    frame_rate,
    pts_to_seconds,
)
from hiera_video.video.options import ShardVideo
from hiera_video.video.orientation import FrameLayout, LayoutUnknown, frame_orientation
from hiera_video.video.packet_index import Stamp, find_packets
from hiera_video.video.packets import KEPT_BYTES, PacketSource, StreamFacts
from hiera_video.video.reader import Frames, Limits, LockedReader, VideoInfo, unreadable
from hiera_video.video.sequential import (
    FramesRenumbered,
    TimesDescend,
    ascending,
    decode_in_order,
)
from hiera_video.video.sources import byte_source

ONE_FRAME_PER_PACKET = {
    "h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg", "ffv1",
    "prores",
}  # fmt: skip
"""Codecs in which each packet is one frame, and it is known whether that is shown. In others,
frames are counted by decoding."""
SKIPS_NONREF = {"h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video"}
"""Decoders that drop non-reference frames on request; tests show the other frames unchanged."""
FALLBACK_FPS = 30.0


class PyAVReader(LockedReader):
    """Reader of video files and of videos in tar shards; implements `reader.VideoReader`.

    Args:
        video: Path of a file, a name `shard.tar!member`, or a video in a shard.
        limits: Limits on frame size and memory.
        kept_bytes: Keep the compressed packets in memory if they take no more than this; otherwise
            each call of `frames` seeks in the file.
        index: Path of a packet index, which saves the scan of the packets.

    Raises:
        DecodeError: The video is unreadable.
        ConfigError: The packet index is missing or damaged.
    """

    def __init__(
        self,
        video: str | ShardVideo,
        *,
        limits: Limits | None = None,
        kept_bytes: int = KEPT_BYTES,
        index: str | None = None,
    ) -> None:
        self._file = byte_source(video)
        super().__init__(path := self._file.path)
        self._limits = limits or Limits()
        self._layout: FrameLayout | None = None
        self._has_read_first = False
        table = None if index is None else find_packets(index, path, self._file.stamp())
        self._source = PacketSource(self._file, self._limits, kept_bytes, table)
        with self.close_on_error():
            self._decoder = single_threaded(self._source.decoder, self._limits)
            self._codec = self._decoder.codec.canonical_name
            # of the container's header; the first frame decides
            self._width, self._height = self._decoder.width, self._decoder.height
            check_size(path, self._width, self._height, self._limits)
            self._index = self._build_index()
            if self._index is not None and self._source.order_is_certain:
                self._set_times(list(self._index.pts))
            else:
                with decode_errors(path, "corrupt", "cannot be decoded"):
                    self._number_by_decoding()

    @property
    def times(self) -> Sequence[float]:
        """Presentation time of each frame in seconds, ascending."""
        return self._times

    @property
    def fps(self) -> float:
        """Average frame rate."""
        return self._fps

    @property
    def frame_bytes(self) -> int:
        """Bytes of an RGB frame, by the file's header until a frame is decoded."""
        return self._width * self._height * 3

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec; unlike `info` this decodes no frame."""
        return self._codec

    @property
    def container(self) -> str:
        """FFmpeg's names of the container format, comma-separated."""
        return self._source.container.format.name

    @property
    def has_open_gops(self) -> bool:
        """True if frames refer to the group of pictures before their key frame, or may do so."""
        return self._index is None or self._index.has_open_gops

    @property
    def key_frames(self) -> Sequence[int]:
        """Numbers of the key frames; empty if they are not known."""
        if self._index is None:
            return ()
        number_of = {packet: number for number, packet in enumerate(self._index.packet)}
        return sorted(number_of[key] for key in self._index.keys if key in number_of)

    @property
    def stream_facts(self) -> StreamFacts:
        """Properties of the stream in which other decoders go wrong."""
        return self._source.stream_facts()

    def _read_info(self) -> VideoInfo:
        layout = self._read_layout()
        height, width = layout.upright_size
        return VideoInfo(
            num_frames=len(self._times),
            fps=self._fps,
            width=width,
            height=height,
            rotation=layout.orientation.quarter_turns * 90,
            mirrored=layout.orientation.mirrored,
            duration_seconds=self._times[-1] - self._times[0] + 1 / self._fps,
            codec=self._codec,
        )

    def _build_index(self) -> FrameIndex | None:
        if self._codec not in ONE_FRAME_PER_PACKET or not self._source.is_plain:
            return None
        table = self._source.stored
        return build_index(self._source.facts) if table is None else table.frame_index()

    def packet_index_row(self) -> tuple[Stamp, bytes] | None:
        """Return stamp and packets for a packet index; None if the video cannot be indexed."""
        table = None if self._index is None else self._source.table()
        stamp = self._file.stamp()
        return None if table is None or stamp is None else (stamp, table.to_bytes())

    def _read_frames(self, indices: list[int]) -> Frames:
        while True:
            try:
                return self._try_frames(indices)
            except LayoutUnknown:
                self._read_layout()
            except FramesRenumbered:
                continue

    def _try_frames(self, indices: list[int]) -> Frames:
        check_request(
            self._path, indices, len(self._times), self._width, self._height, self._limits
        )
        positions: dict[int, list[int]] = {}
        for position, index in enumerate(indices):
            positions.setdefault(index, []).append(position)
        out: Frames | None = None  # allocated when the first frame gives the layout
        reformatter = VideoReformatter()
        with closing(self._decode(list(positions))) as frames:
            for index, frame in frames:
                if self._layout is None:
                    self._guess_layout(frame)
                with stage("convert"):
                    picture = self._to_upright_rgb(frame, reformatter)
                if out is None:
                    out = np.empty((len(indices), *picture.shape), np.uint8)
                out[positions[index]] = picture
        return np.empty((0, self.info.height, self.info.width, 3), np.uint8) if out is None else out

    def iter_at(self, indices: Iterable[int]) -> Generator[tuple[int, Frames]]:
        """Yield each of `indices` and its frame, uint8 [H, W, 3], in bounded memory.

        Raises:
            DecodeError: A frame is damaged.
            FramesRenumbered: The decoder contradicts the times in the file. Start again.
        """
        self._read_layout()
        reformatter = VideoReformatter()
        with closing(self._decode(sorted(set(indices)))) as frames:
            for index, frame in frames:
                yield index, self._to_upright_rgb(frame, reformatter)

    def _guess_layout(self, frame: VideoFrame) -> None:
        """Take the layout of any frame for that of the first, if nothing speaks against it."""
        agrees = (frame.width, frame.height) == (self._width, self._height)
        if not agrees or self._source.orients_first_frame:
            raise LayoutUnknown
        self._set_layout(frame)

    def _read_layout(self) -> FrameLayout:
        while self._layout is None:
            with suppress(FramesRenumbered):
                for _, frame in self._decode([0]):
                    self._set_layout(frame)
        return self._layout

    def _set_layout(self, frame: VideoFrame) -> None:
        check_size(self._path, frame.width, frame.height, self._limits)
        self._width, self._height = frame.width, frame.height
        orientation = frame_orientation(frame, self._path)
        self._layout = FrameLayout(frame.height, frame.width, orientation)

    def iter_frames(self) -> Iterator[Frames]:
        """Yield all frames in order, in bounded memory: uint8 [H, W, 3].

        Raises:
            DecodeError: A frame is damaged.
        """
        number_of = self._number_of_pts()
        reformatter, count = VideoReformatter(), 0
        missing: int | None = None
        with decode_errors(self._path, "corrupt", "cannot be decoded"):
            for frame in self._decode_all():
                index = count if number_of is None else number_of.get(frame.pts or 0)
                if index is None:
                    continue  # hidden by an edit list
                if index != count and missing is None:
                    missing = count
                count += 1
                if self._layout is None:
                    self._set_layout(frame)
                yield self._to_upright_rgb(frame, reformatter)
        if count != len(self._times):
            raise self._undecodable(count if missing is None else missing)

    def _release(self) -> None:
        self._source.close()

    def _to_upright_rgb(self, frame: VideoFrame, reformatter: VideoReformatter) -> Frames:
        # one thread: swscale would otherwise start one per core, for every frame
        rgb = reformatter.reformat(
            frame, width=self._width, height=self._height, format="rgb24", threads=1
        )
        picture: Any = rgb.to_ndarray()
        assert self._layout is not None
        return self._layout.orientation.apply(picture)

    def _decode(self, indices: list[int]) -> Generator[tuple[int, VideoFrame]]:
        """Yield each of the distinct `indices` with its frame, in any order.

        Raises:
            DecodeError: One of the frames cannot be decoded.
            FramesRenumbered: What was yielded before is not valid.
        """
        missing = set(indices)
        try:
            if self._index is not None:
                number_of = {self._index.pts[i]: i for i in indices}
                for packets in self._index.ranges(indices):
                    if not (yield from self._decode_range(packets, number_of, missing)):
                        break
                if not missing:
                    return
            # frames that failed above get a second chance before the error
            with decode_errors(self._path, "corrupt", "cannot be decoded"):
                yield from self._decode_from_start(missing)
        except TimesDescend as error:
            with decode_errors(self._path, "corrupt", "cannot be decoded"):
                self._renumber()
            raise FramesRenumbered from error
        if missing:
            raise self._undecodable(min(missing))

    def _renumber(self) -> None:
        """Number the frames in the order in which they are decoded, as their times are wrong."""
        count = len(self._times)
        self._index = None
        self._number_by_decoding()
        if len(self._times) != count:
            raise self._undecodable(min(count, len(self._times)))

    def _decode_range(
        self, packets: PacketRange, number_of: dict[int, int], missing: set[int]
    ) -> Generator[tuple[int, VideoFrame], None, bool]:
        """Yield the missing frames of a range of packets; return False if a frame is damaged."""
        try:
            for frame in ascending(self._frames_of(packets)):
                if frame.is_corrupt:
                    return False
                if frame.pts in packets.wanted and (index := number_of[frame.pts]) in missing:
                    missing.discard(index)
                    yield index, frame
        except (av.FFmpegError, OSError):  # from the decoder, or from the disk under a shard
            return False
        finally:
            self._decoder.flush_buffers()
            self._decoder.skip_frame = "DEFAULT"
        return True

    def _frames_of(self, packets: PacketRange) -> Iterator[VideoFrame]:
        decoder, skips = self._decoder, self._codec in SKIPS_NONREF
        if packets.first and not self._has_read_first and self._needs_first_packet():
            for packet in self._source.packets(0, 0):
                decoder.decode(packet)
            self._has_read_first = True
        decoder.flush_buffers()
        for packet in self._source.packets(packets.first, packets.last):
            if skips:
                decoder.skip_frame = "DEFAULT" if packet.pts in packets.wanted else "NONREF"
            yield from decoder.decode(packet)
        yield from decoder.decode(None)

    def _needs_first_packet(self) -> bool:
        """Return True if the first packet alone may say how to decode the others.

        In 4:4:4, FFmpeg's H.264 decoder repeats a mistake of x264 before build 151, which writes
        its build into the first packet.
        """
        formats = ("yuv444", "gbr")
        return self._codec == "h264" and (self._decoder.pix_fmt or "").startswith(formats)

    def _decode_from_start(self, missing: set[int]) -> Generator[tuple[int, VideoFrame]]:
        """Decode all frames in order and yield the missing ones, until none is left."""
        number_of = self._number_of_pts()
        frames = self._decode_all()
        for ordinal, frame in enumerate(frames if number_of is None else ascending(frames)):
            index = ordinal if number_of is None else number_of.get(frame.pts or 0, -1)
            if index in missing:
                missing.discard(index)
                yield index, frame
            if not missing:
                return

    def _decode_all(self) -> Iterator[VideoFrame]:
        """Yield every frame of the reopened file in presentation order."""
        with self._file.open(self._limits) as container:
            yield from decode_in_order(container, self._source.index, self._path, self._limits)

    def _number_of_pts(self) -> dict[int, int] | None:
        return None if self._index is None else {pts: i for i, pts in enumerate(self._index.pts)}

    def _undecodable(self, index: int) -> DecodeError:
        message = f"frame {index} of {len(self._times)} cannot be decoded"
        return unreadable(self._path, "corrupt", message)

    def _number_by_decoding(self) -> None:
        """Number the frames in the order in which the decoder shows them.

        An index whose order was only in doubt is kept if that is its order.
        """
        times = [frame.pts for frame in self._decode_all()]
        if not times:
            raise unreadable(self._path, "no_frames", "its video packets contain no frame")
        if self._index is not None and times == list(self._index.pts):
            self._set_times(list(self._index.pts))
            return
        self._index = None
        self._set_times(display_times(times), count=len(times))

    def _set_times(self, pts: list[int], count: int = 0) -> None:
        """Set the times on the file's clock and the average frame rate.

        Args:
            pts: Presentation time of each frame; empty if unknown.
            count: Number of frames if `pts` is empty; they are then evenly spaced.
        """
        header = float(self._source.stream.average_rate or self._source.stream.guessed_rate or 0)
        base = self._source.stream.time_base or Fraction(1, 1000)
        self._fps = frame_rate(header, pts, base) or FALLBACK_FPS
        if not pts:
            self._times: tuple[float, ...] = tuple(i / self._fps for i in range(count))
            return
        # as players show it, time 0 is the start of the file's first stream
        start = Fraction(self._source.container.start_time or 0, av.time_base)
        self._times = pts_to_seconds(pts, base, start)
