"""The only writer of video: atomic, and deterministic to the byte.

The frames may be any iterable of uint8 [H, W, 3]:

    write_video("clip.mp4", frames, fps=30)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from hiera_video.errors import ConfigError
from hiera_video.utils.atomic_files import atomic_path

Frame = npt.NDArray[np.uint8]

HAS_CRF = ("libx264", "libx265", "libvpx", "libvpx-vp9", "libaom-av1", "libsvtav1")
TICKS_PER_SECOND = 90_000
"""Clock of videos with a variable frame rate; 24, 25, 30, 50 and 60 divide it."""


def write_video(
    path: str | Path,
    frames: Iterable[Frame],
    *,
    fps: float | Fraction = 30,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    gop: int = 32,
    bframes: int = 2,
    crf: int = 18,
    rotation: int = 0,
    times: Sequence[float] | None = None,
    size: tuple[int, int] | None = None,
    options: Mapping[str, str] | None = None,
) -> int:
    """Encode `frames` into one file.

    The file appears at `path` when it is complete. On one machine, the same call writes the same
    bytes each time.

    Args:
        path: File to write; the suffix selects the container.
        frames: uint8 [H, W, 3], RGB, all of one size.
        fps: Frame rate.
        codec: FFmpeg's name of the encoder.
        pixel_format: FFmpeg's name of the pixel format; `yuv420p` needs even sides.
        gop: Largest distance between key frames.
        bframes: Largest number of consecutive B-frames.
        crf: Quality, lower is better; ignored by codecs without it.
        rotation: Counter-clockwise rotation for players in degrees, stored as metadata.
        times: Seconds of each frame, for a variable frame rate.
        size: Height and width to which the frames are scaled.
        options: Further options of the encoder.

    Returns:
        The number of frames written.

    Raises:
        ConfigError: There are no frames, or one has another size or type.
    """
    path = Path(path)
    with (
        atomic_path(path, shared=True, suffix=f".partial{path.suffix}") as partial,
        av.open(str(partial), "w", container_options={"fflags": "+bitexact"}) as container,
    ):
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream(codec, rate=rate, options=_codec_options(codec, crf, options))
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.pix_fmt, context.gop_size, context.max_b_frames = pixel_format, gop, bframes
        # more threads would split the frame by the number of cores, and so change the bytes
        context.thread_count = 1
        context.time_base = 1 / rate if times is None else Fraction(1, TICKS_PER_SECOND)
        if rotation:
            stream.set_display_rotation(rotation)
        count = 0
        for picture in _pictures(frames, context, times, size):
            container.mux(stream.encode(picture))
            count += 1
        if count == 0:
            raise ConfigError(f"{path}: no frames to write; a video needs at least one")
        container.mux(stream.encode(None))
    return count


def _codec_options(codec: str, crf: int, options: Mapping[str, str] | None) -> dict[str, str]:
    chosen = {"flags": "+bitexact"}
    if codec in HAS_CRF:
        chosen["crf"] = str(crf)
    if codec.startswith("libvpx"):
        chosen["b"] = "0"  # otherwise crf only limits the quality at a default bit rate
    if codec == "libx264":
        # the macroblock tree reads uninitialised memory, so the bytes would sometimes differ
        chosen |= {"preset": "veryfast", "mbtree": "0"}
    return chosen | dict(options or {})


def _pictures(
    frames: Iterable[Frame],
    context: VideoCodecContext,
    times: Sequence[float] | None,
    size: tuple[int, int] | None,
) -> Iterator[av.VideoFrame]:
    """Yield frames in the codec's pixel format with their presentation time."""
    reformatter = VideoReformatter()
    shape: tuple[int, ...] | None = None
    for number, frame in enumerate(frames):
        _check_frame(frame, number, shape, context.pix_fmt, size)
        if shape is None:
            shape = frame.shape
            context.height, context.width = size or shape[:2]
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture = reformatter.reformat(
            picture,
            context.width,
            context.height,
            context.pix_fmt,
            interpolation="BICUBIC" if size else None,
            threads=1,
        )
        picture.pts = number if times is None else round(times[number] * TICKS_PER_SECOND)
        picture.time_base = context.time_base
        yield picture


def _check_frame(
    frame: Frame,
    number: int,
    shape: tuple[int, ...] | None,
    pixel_format: str | None,
    size: tuple[int, int] | None,
) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ConfigError(
            f"frame {number} is {frame.dtype} {list(frame.shape)}: write_video takes uint8 "
            "[H, W, 3]"
        )
    if shape is not None and frame.shape != shape:
        raise ConfigError(
            f"frame {number} is {list(frame.shape)}, the first was {list(shape)}: all must have "
            "one size"
        )
    height, width = size or frame.shape[:2]
    if pixel_format == "yuv420p" and (height % 2 or width % 2):
        raise ConfigError(
            f"frames of {width}x{height} pixels: yuv420p needs even sides; crop them or pass "
            "pixel_format='yuv444p'"
        )
