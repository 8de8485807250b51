"""The only writer of video: frames in, one file out, whole or not at all, and the same bytes each time.

write_video("clip.mp4", frames, fps=30)             # frames: any iterable of uint8 [H, W, 3]
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
TICKS_PER_SECOND = (
    90_000  # the clock that frames of variable rate are put on; 24, 25, 30, 50 and 60 divide it
)


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
    """Write `frames` (uint8 [H, W, 3], RGB, one size) and return how many there were.

    The container follows the path's suffix. `gop` is the longest way from key frame to key frame, `bframes` the longest
    run of B-frames, `crf` the quality (lower is better) where the codec has it. `rotation`: degrees counter-clockwise
    that a player turns the picture, stored as metadata. `times`: seconds of each frame, where the rate is not constant.
    `size`: height and width that the frames are scaled to.
    The file appears under its name when it is complete; on one machine the same call writes the same bytes.
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
        context.thread_count = (
            1  # more would cut the picture by the machine's cores, and so change the bytes
        )
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
        chosen["b"] = "0"  # otherwise crf is only a limit beside a default bit rate
    if codec == "libx264":
        # the macroblock tree reads memory that nobody wrote, and so the same frames would give other bytes now and then
        chosen |= {"preset": "veryfast", "mbtree": "0"}
    return chosen | dict(options or {})


def _pictures(
    frames: Iterable[Frame],
    context: VideoCodecContext,
    times: Sequence[float] | None,
    size: tuple[int, int] | None,
) -> Iterator[av.VideoFrame]:
    """Frames in the codec's pixel format, with their presentation time."""
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
            f"frame {number} is {frame.dtype} {list(frame.shape)}: write_video takes uint8 [H, W, 3]"
        )
    if shape is not None and frame.shape != shape:
        raise ConfigError(
            f"frame {number} is {list(frame.shape)}, the first was {list(shape)}: all must have one size"
        )
    height, width = size or frame.shape[:2]
    if pixel_format == "yuv420p" and (height % 2 or width % 2):
        raise ConfigError(
            f"frames of {width}x{height} pixels: yuv420p needs even sides; crop them or pass pixel_format='yuv444p'"
        )
