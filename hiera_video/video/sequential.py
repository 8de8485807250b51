"""Frames of a video in the order in which its decoder shows them, from the start of the file."""

from __future__ import annotations

from collections.abc import Iterator

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from hiera_video.video.container import single_threaded
from hiera_video.video.reader import Limits, unreadable


class TimesDescend(Exception):
    """The decoder shows frames in another order than their times."""


class FramesRenumbered(Exception):
    """The frames have other numbers from now on; those that were read before are not valid."""


def ascending(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """Yield the frames; raise `TimesDescend` if one is earlier than the frame before it."""
    latest: int | None = None
    for frame in frames:
        if latest is not None and frame.pts is not None and frame.pts < latest:
            raise TimesDescend
        latest = frame.pts if frame.pts is not None else latest
        yield frame


def decode_in_order(
    container: InputContainer, index: int, path: str, limits: Limits
) -> Iterator[VideoFrame]:
    """Yield every frame of stream `index` in presentation order.

    Damaged frames before the first intact one are skipped: a stream that was cut out of another
    begins with frames whose references are missing.

    Raises:
        DecodeError: A frame is damaged.
    """
    stream = container.streams[index]
    assert isinstance(stream, VideoStream)
    decoder = single_threaded(stream.codec_context, limits)
    started = False
    for packet in container.demux(stream):
        is_end = packet.size == 0 and packet.dts is None
        if packet.size == 0 and not is_end:
            continue  # AVI's "repeat the last frame"; the decoder would take it as the end
        try:
            frames = decoder.decode(None if is_end else packet)
        except av.error.InvalidDataError:
            if started:
                raise
            continue
        for frame in frames:
            if frame.is_corrupt and not started:
                continue
            if frame.is_corrupt:
                message = f"the frame at {frame.time} s is damaged"
                raise unreadable(path, "corrupt", message)
            started = True
            yield frame
