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
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
from av.packet import Packet
from av.stream import Discard
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from hiera_video.data.decode.index import FrameIndex, PacketFacts, Run, build_index
from hiera_video.data.decode.opening import (
    check_file,
    check_size,
    decoding,
    matroska_duration,
    open_container,
    rotation,
    single_threaded,
    video_stream,
)
from hiera_video.data.decode.protocol import Frames, Limits, VideoInfo, broken

# One packet is one shown frame in these; elsewhere (VP8 has packets that show nothing) frames are counted by decoding.
ONE_FRAME_A_PACKET = {"h264", "hevc", "vp9", "av1", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg", "ffv1", "prores"}
# Decoders that drop non-reference frames on request, tested to leave the other frames' pixels alone.
SKIPS_NONREF = {"h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video"}
# Up to this size of a file's packets they stay in memory, and nothing is read twice.
KEPT_BYTES = 64 << 20

# Only these store every packet's times; elsewhere they are worked out on the way and differ after a seek.
STORES_TIMES = ("mov", "matroska")

FALLBACK_FPS = 30.0
# The last frame begins at most this long before the end that a Matroska file names.
LAST_FRAME_SECONDS = 0.5


class PyAVReader:
    """A video opened with PyAV; see `protocol.VideoReader`."""

    def __init__(self, path: str, *, limits: Limits | None = None, kept_bytes: int = KEPT_BYTES) -> None:
        self._path = path
        self._limits = limits or Limits()
        self._info: VideoInfo | None = None
        self._turns: int | None = None
        self._kept: list[Packet[VideoStream]] | None = []
        check_file(path)
        with decoding(path, "container", "cannot be opened as a video"):
            self._container = open_container(path, self._limits)
        try:
            self._stream = video_stream(self._container, path)
            self._decoder = self._prepare_decoder()
            self._width, self._height = self._decoder.width, self._decoder.height
            check_size(path, self._width, self._height, self._limits)
            with decoding(path, "truncated", "cannot be read to its end"):
                self._scan(kept_bytes)
            if self._index is None:
                with decoding(path, "corrupt", "cannot be decoded"):
                    self._count_by_decoding()
        except BaseException:
            self.close()
            raise

    # -- facts ---------------------------------------------------------------------------------------------------------

    @property
    def times(self) -> Sequence[float]:
        return self._times

    @property
    def fps(self) -> float:
        return self._fps

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
        count = len(self._times)
        for index in indices:
            if not 0 <= index < count:
                raise IndexError(f"{self._path}: frame {index} was asked for, but there are {count}, 0 to {count - 1}")
        needed = len(indices) * self._width * self._height * 3
        if needed > self._limits.max_bytes:
            raise broken(
                self._path,
                "too_large",
                f"{len(indices)} frames of {self._width}x{self._height} take {needed / 2**20:.0f} MiB, over the limit of "
                f"{self._limits.max_bytes / 2**20:.0f} MiB; make the video smaller",
            )
        places: dict[int, list[int]] = {}
        for place, index in enumerate(indices):
            places.setdefault(index, []).append(place)
        out: list[Frames] = []  # one array, made when the first frame tells which way is up
        reformatter = VideoReformatter()

        def convert(index: int, frame: VideoFrame) -> None:
            # one thread: swscale otherwise starts as many as there are cores, for every frame
            rgb = reformatter.reformat(frame, width=self._width, height=self._height, format="rgb24", threads=1)
            picture: Any = rgb.to_ndarray()
            if not out:
                out.append(np.empty((len(indices), *self._upright_size(frame), 3), np.uint8))
            out[0][places[index]] = np.rot90(picture, self._turns or 0)

        self._decode(list(places), convert)
        return out[0] if out else np.empty((0, self.info.height, self.info.width, 3), np.uint8)

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
            if all(self._decode_run(run, number_of, take_wanted) for run in self._index.runs(indices)) and not missing:
                return
        with decoding(self._path, "corrupt", "cannot be decoded"):
            self._decode_from_start(missing, take_wanted)
        if missing:
            raise broken(self._path, "corrupt", f"frame {min(missing)} of {len(self._times)} cannot be decoded")

    def _decode_run(self, run: Run, number_of: dict[int, int], take: Callable[[int, VideoFrame], None]) -> bool:
        """Decode one stretch of packets. False where a frame in it is damaged."""
        decoder, skips = self._decoder, self._codec in SKIPS_NONREF
        try:
            decoder.flush_buffers()
            for packet in self._packets(run.first, run.last):
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
        except av.FFmpegError:
            return False
        finally:
            decoder.flush_buffers()
            decoder.skip_frame = "DEFAULT"
        return True

    def _decode_from_start(self, wanted: set[int], take: Callable[[int, VideoFrame], None]) -> None:
        """The slow and sure way: all frames in order, until none is wanted any more."""
        number_of = None if self._index is None else {pts: i for i, pts in enumerate(self._index.pts)}
        for ordinal, frame in enumerate(self._all_frames()):
            index = ordinal if number_of is None else number_of.get(frame.pts or 0, -1)
            take(index, frame)
            if not wanted:
                return

    def _all_frames(self) -> Iterator[VideoFrame]:
        """Every frame in the order of presentation, from a file opened anew. Damage after the first frame is an error."""
        with open_container(self._path, self._limits) as container:
            stream = container.streams[self._stream_index]
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
                        raise broken(self._path, "corrupt", f"the frame at {frame.time} s is damaged")
                    started = True
                    yield frame

    # -- packets -------------------------------------------------------------------------------------------------------

    def _prepare_decoder(self) -> VideoCodecContext:
        decoder = self._stream.codec_context
        if decoder is None:
            raise broken(self._path, "codec", "holds video that no decoder here reads; convert it to H.264")
        self._codec = decoder.codec.canonical_name
        self._stream_index = self._stream.index
        for stream in self._container.streams:
            if stream.index != self._stream_index:
                stream.discard = Discard.all
        return single_threaded(decoder, self._limits)

    def _scan(self, kept_bytes: int) -> None:
        """Read through the packets: frame times, key frames, and the packets themselves if they are not too many."""
        facts: list[PacketFacts] = []
        self._clock: list[tuple[int | None, int | None]] = []  # pts and dts of each packet
        size = 0
        stateful = damaged = False
        for packet in self._container.demux(self._stream):
            if packet.size == 0:
                continue
            size += packet.size
            damaged = damaged or packet.is_corrupt
            stateful = stateful or (bool(facts) and packet.has_sidedata("new_extradata"))
            self._clock.append((packet.pts, packet.dts))
            facts.append(PacketFacts(packet.pts, packet.is_keyframe, packet.is_discard))
            if self._kept is not None:
                self._kept.append(packet)
                if size > kept_bytes:
                    self._kept = None
        self._where = {} if self._kept is not None else {times: i for i, times in enumerate(self._clock)}
        self._check_complete(len(facts))
        if not facts:
            raise broken(self._path, "no_frames", "holds a video stream without a single packet")
        # a decoder that changes its parameters on the way cannot be started in the middle
        trusted = self._codec in ONE_FRAME_A_PACKET and not stateful and not damaged
        self._index: FrameIndex | None = build_index(facts) if trusted else None
        if self._index is not None:
            self._set_times(list(self._index.pts))

    def _check_complete(self, packets: int) -> None:
        """Containers that say at the start how much there is show when the end is missing."""
        name, promised = self._container.format.name, 0
        if "mov" in name:
            promised = len(self._stream.index_entries)
        elif "avi" in name:
            promised = self._stream.frames
        if packets < promised:
            raise broken(self._path, "truncated", f"has {packets} of {promised} packets; fetch or make the file again")
        if "matroska" in name and (seconds := matroska_duration(self._stream)) is not None:
            base = float(self._stream.time_base or 0)
            last = max((pts for pts, _ in self._clock if pts is not None), default=0) * base
            if seconds - last > LAST_FRAME_SECONDS:
                raise broken(
                    self._path, "truncated", f"ends at {last:.1f} of {seconds:.1f} s; fetch or make the file again"
                )

    def _packets(self, first: int, last: int) -> Iterator[Packet[VideoStream]]:
        """Packets `first` to `last` of the decode order, both included."""
        if self._kept is not None:
            yield from self._kept[first : last + 1]
            return
        if any(name in self._container.format.name for name in STORES_TIMES):
            pts, dts = self._clock[first]
            # where the container's index counts pts, the key frame's dts may point before it: more to read, never wrong
            target = dts if dts is not None else pts
            assert target is not None
            self._container.seek(target, stream=self._stream)
            read = self._read_from(first, last)
            packet = next(read, None)
            if packet is not None:
                yield packet
                yield from read
                return
        self._reopen()  # not seekable, or the seek went past the key frame
        yield from self._read_from(first, last)

    def _read_from(self, first: int, last: int) -> Iterator[Packet[VideoStream]]:
        """Packets `first` to `last` from where the container stands; none at all if it stands behind `first`."""
        started = False
        for packet in self._container.demux(self._stream):
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
        self._container.close()
        self._container = open_container(self._path, self._limits)
        stream = self._container.streams[self._stream_index]
        assert isinstance(stream, VideoStream)
        self._stream = stream

    def _count_by_decoding(self) -> None:
        times = [frame.pts for frame in self._all_frames()]
        if not times:
            raise broken(self._path, "no_frames", "holds video packets, but none of them shows a frame")
        known = [pts for pts in times if pts is not None]
        if len(known) != len(times) or any(a >= b for a, b in pairwise(known)):
            known = []
        self._set_times(known, count=len(times))

    def _set_times(self, pts: list[int], count: int = 0) -> None:
        """Seconds of each frame on the file's clock and the average rate; without `pts`, evenly at the header's rate."""
        header = float(self._stream.average_rate or self._stream.guessed_rate or 0)
        base = self._stream.time_base or Fraction(1, 1000)
        measured = 0.0
        if len(pts) > 1 and pts[-1] > pts[0]:
            measured = float((len(pts) - 1) / ((pts[-1] - pts[0]) * base))
        # times are rounded to the container's ticks, so the header's rate is the better one unless it is another one
        agrees = measured == 0 or abs(header - measured) <= 0.02 * measured
        self._fps = header if header > 0 and agrees else measured or FALLBACK_FPS
        if not pts:
            self._times: tuple[float, ...] = tuple(i / self._fps for i in range(count))
            return
        start = Fraction(self._container.start_time or 0, av.time_base)
        offset = 0.0 if self._container.start_time is None else float(start)
        self._times = tuple(float(time * base) - offset for time in pts)

    # -- end -----------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        self._kept = None
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
