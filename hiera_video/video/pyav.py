"""PyAV reader: exact frames by presentation time, decoding no more than they need.

Opening reads through the packets (no decoding), which gives every frame's time and the key frames. `frames` then feeds
the decoder from the key frame before each wanted frame up to the frame itself, tells it to drop pictures that nobody
asked for and nothing leans on, and drains it. Where packets do not tell the frames (see `index.build_index`), or a
frame that they promise does not come, it decodes from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from hiera_video.utils.profiler import stage
from hiera_video.video.container import (
    check_request,
    check_size,
    decoding,
    rotation,
    single_threaded,
)
from hiera_video.video.frame_index import FrameIndex, PacketRange, build_index, seconds_of
from hiera_video.video.options import ShardVideo
from hiera_video.video.packet_index import Stamp, find_packets
from hiera_video.video.packets import KEPT_BYTES, PacketSource
from hiera_video.video.reader import Closeable, Frames, Limits, VideoInfo, unreadable
from hiera_video.video.sources import byte_source

# One packet is one shown frame in these; elsewhere (VP8 has packets that show nothing) frames are counted by decoding.
ONE_FRAME_A_PACKET = {
    "h264",
    "hevc",
    "vp9",
    "av1",
    "mpeg4",
    "mpeg2video",
    "mpeg1video",
    "mjpeg",
    "ffv1",
    "prores",
}
# Decoders that drop non-reference frames on request, tested to leave the other frames' pixels alone.
SKIPS_NONREF = {"h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video"}
FALLBACK_FPS = 30.0


class PyAVReader(Closeable):
    """A video opened with PyAV; see `protocol.VideoReader`."""

    def __init__(
        self,
        video: str | ShardVideo,
        *,
        limits: Limits | None = None,
        kept_bytes: int = KEPT_BYTES,
        index: str | None = None,
    ) -> None:
        self._file = byte_source(video)
        self._path = path = self._file.path
        self._limits = limits or Limits()
        self._info: VideoInfo | None = None
        self._turns: int | None = None
        known = None if index is None else find_packets(index, path, self._file.stamp())
        self._source = PacketSource(self._file, self._limits, kept_bytes, known)
        with self.close_on_error():
            self._decoder = single_threaded(self._source.decoder, self._limits)
            self._codec = self._decoder.codec.canonical_name
            self._width, self._height = self._decoder.width, self._decoder.height
            check_size(path, self._width, self._height, self._limits)
            trusted = self._codec in ONE_FRAME_A_PACKET and self._source.is_plain
            self._index: FrameIndex | None = None
            if trusted:
                self._index = (
                    build_index(self._source.facts) if known is None else known.frame_index()
                )
            if self._index is not None:
                self._set_times(list(self._index.pts))
            else:
                with decoding(path, "corrupt", "cannot be decoded"):
                    self._count_by_decoding()

    # -- facts ---------------------------------------------------------------------------------------------------------

    @property
    def times(self) -> Sequence[float]:
        return self._times

    @property
    def fps(self) -> float:
        return self._fps

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec; no frame is decoded for it."""
        return self._codec

    @property
    def container(self) -> str:
        """FFmpeg's names of the container, joined by commas."""
        return self._source.container.format.name

    @property
    def has_open_gops(self) -> bool:
        """Whether some pictures lean on the group before their key frame; also where nobody can tell."""
        return self._index is None or self._index.has_open_gops

    def packet_index_row(self) -> tuple[Stamp, bytes] | None:
        """What `packet_index` writes down of this video; None where that would not help."""
        known, stamp = self._source.known() if self._index is not None else None, self._file.stamp()
        return None if known is None or stamp is None else (stamp, known.to_bytes())

    @property
    def info(self) -> VideoInfo:
        if self._info is None:
            size: list[tuple[int, int]] = []
            self._decode([0], lambda _, frame: size.append(self._upright_size(frame)))
            self._info = VideoInfo(
                num_frames=len(self._times),
                fps=self._fps,
                width=size[0][1],
                height=size[0][0],
                rotation=(self._turns or 0) * 90,
                duration_seconds=self._times[-1] - self._times[0] + 1 / self._fps,
                codec=self._codec,
            )
        return self._info

    # -- frames --------------------------------------------------------------------------------------------------------

    def frames(self, indices: Sequence[int]) -> Frames:
        check_request(
            self._path, indices, len(self._times), self._width, self._height, self._limits
        )
        places: dict[int, list[int]] = {}
        for place, index in enumerate(indices):
            places.setdefault(index, []).append(place)
        out: list[Frames] = []  # one array, made when the first frame tells which way is up
        reformatter = VideoReformatter()

        def convert(index: int, frame: VideoFrame) -> None:
            with stage("convert"):
                picture = self._upright(frame, reformatter)
            if not out:
                out.append(np.empty((len(indices), *picture.shape), np.uint8))
            out[0][places[index]] = picture

        self._decode(list(places), convert)
        return out[0] if out else np.empty((0, self.info.height, self.info.width, 3), np.uint8)

    def iter_frames(self) -> Iterator[Frames]:
        """All frames, [H, W, 3] each, in one pass and one at a time: long videos need no memory. `DecodeError` unless all
        are intact."""
        number_of = (
            None if self._index is None else {pts: i for i, pts in enumerate(self._index.pts)}
        )
        reformatter, given = VideoReformatter(), 0
        with decoding(self._path, "corrupt", "cannot be decoded"):
            for frame in self._all_frames():
                index = given if number_of is None else number_of.get(frame.pts or 0)
                if index is None:
                    continue  # an edit list hides it
                if index != given:
                    break
                given += 1
                yield self._upright(frame, reformatter)
        if given != len(self._times):
            raise unreadable(
                self._path, "corrupt", f"frame {given} of {len(self._times)} cannot be decoded"
            )

    def _upright(self, frame: VideoFrame, reformatter: VideoReformatter) -> Frames:
        # one thread: swscale otherwise starts as many as there are cores, for every frame
        rgb = reformatter.reformat(
            frame, width=self._width, height=self._height, format="rgb24", threads=1
        )
        picture: Any = rgb.to_ndarray()
        self._upright_size(frame)
        return np.rot90(picture, self._turns or 0)

    def _upright_size(self, frame: VideoFrame) -> tuple[int, int]:
        """Height and width after rotation, which only a decoded frame tells; the file's first one decides."""
        if self._turns is None:
            self._turns = rotation(frame) // 90
        return (self._height, self._width) if self._turns % 2 == 0 else (self._width, self._height)

    def _decode(self, indices: list[int], take: Callable[[int, VideoFrame], None]) -> None:
        """Call `take(index, frame)` once for each of the distinct `indices`, in any order. `DecodeError` if one fails."""
        missing = set(indices)

        def take_wanted(index: int, frame: VideoFrame) -> None:
            if index in missing:
                take(index, frame)
                missing.discard(index)

        if self._index is not None:
            number_of = {self._index.pts[i]: i for i in missing}
            # what fails here gets its second chance, and its error, below
            if (
                all(
                    self._decode_run(run, number_of, take_wanted)
                    for run in self._index.runs(indices)
                )
                and not missing
            ):
                return
        with decoding(self._path, "corrupt", "cannot be decoded"):
            self._decode_from_start(missing, take_wanted)
        if missing:
            raise unreadable(
                self._path,
                "corrupt",
                f"frame {min(missing)} of {len(self._times)} cannot be decoded",
            )

    def _decode_run(
        self, run: PacketRange, number_of: dict[int, int], take: Callable[[int, VideoFrame], None]
    ) -> bool:
        """Decode one stretch of packets. False where a frame in it is damaged."""
        decoder, skips = self._decoder, self._codec in SKIPS_NONREF
        try:
            decoder.flush_buffers()
            for packet in self._source.packets(run.first, run.last):
                if skips:
                    decoder.skip_frame = "DEFAULT" if packet.pts in run.wanted else "NONREF"
                for frame in decoder.decode(packet):
                    if frame.is_corrupt:
                        return False
                    if frame.pts in run.wanted:
                        take(number_of[frame.pts], frame)
            for frame in decoder.decode(None):
                if frame.is_corrupt:
                    return False
                if frame.pts in run.wanted:
                    take(number_of[frame.pts], frame)
        except (
            av.FFmpegError,
            OSError,
        ):  # of the decoder, or of the disk that a shard's window reads from
            return False
        finally:
            decoder.flush_buffers()
            decoder.skip_frame = "DEFAULT"
        return True

    def _decode_from_start(self, wanted: set[int], take: Callable[[int, VideoFrame], None]) -> None:
        """The slow and sure way: all frames in order, until none is wanted any more."""
        number_of = (
            None if self._index is None else {pts: i for i, pts in enumerate(self._index.pts)}
        )
        for ordinal, frame in enumerate(self._all_frames()):
            index = ordinal if number_of is None else number_of.get(frame.pts or 0, -1)
            take(index, frame)
            if not wanted:
                return

    def _all_frames(self) -> Iterator[VideoFrame]:
        """Every frame in the order of presentation, from a file opened anew. Damage after the first frame is an error."""
        with self._file.opened(self._limits) as container:
            stream = container.streams[self._source.index]
            assert isinstance(stream, VideoStream)
            decoder = single_threaded(stream.codec_context, self._limits)
            started = False
            for packet in container.demux(stream):
                flushing = packet.size == 0 and packet.dts is None
                if packet.size == 0 and not flushing:
                    continue  # AVI's "show the last frame again"; the decoder would take it for the end
                try:
                    frames = decoder.decode(None if flushing else packet)
                except av.error.InvalidDataError:
                    if started:
                        raise
                    continue  # a stream that was cut out of another begins with pictures whose references are gone
                for frame in frames:
                    if frame.is_corrupt and not started:
                        continue
                    if frame.is_corrupt:
                        raise unreadable(
                            self._path, "corrupt", f"the frame at {frame.time} s is damaged"
                        )
                    started = True
                    yield frame

    # -- times -----------------------------------------------------------------------------------------------------------

    def _count_by_decoding(self) -> None:
        times = [frame.pts for frame in self._all_frames()]
        if not times:
            raise unreadable(
                self._path, "no_frames", "holds video packets, but none of them shows a frame"
            )
        known = [pts for pts in times if pts is not None]
        if len(known) != len(times) or any(a >= b for a, b in pairwise(known)):
            known = []
        self._set_times(known, count=len(times))

    def _set_times(self, pts: list[int], count: int = 0) -> None:
        """Seconds of each frame on the file's clock and the average rate; without `pts`, evenly at the header's rate."""
        header = float(self._source.stream.average_rate or self._source.stream.guessed_rate or 0)
        base = self._source.stream.time_base or Fraction(1, 1000)
        measured = 0.0
        if len(pts) > 1 and pts[-1] > pts[0]:
            measured = float((len(pts) - 1) / ((pts[-1] - pts[0]) * base))
        # times are rounded to the container's ticks, so the header's rate is the better one unless it is another one
        agrees = measured == 0 or abs(header - measured) <= 0.02 * measured
        self._fps = header if header > 0 and agrees else measured or FALLBACK_FPS
        if not pts:
            self._times: tuple[float, ...] = tuple(i / self._fps for i in range(count))
            return
        # on the clock that players show: 0 is where the file's first stream begins
        start = Fraction(self._source.container.start_time or 0, av.time_base)
        self._times = seconds_of(pts, base, start)

    # -- end -----------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        self._source.close()
