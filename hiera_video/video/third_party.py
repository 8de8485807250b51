"""decord and torchcodec as readers, checked against the packets.

PyAV first scans the file's packets without decoding, with all its checks: allowed formats and frame
sizes. Number and times of the frames come from there; the other decoder only supplies pixels. A
file in which it counts a different number of frames (decord, after a cut by stream copy), or for
which it is known or found by trial to return wrong frames without an error, is refused with the
reason `backend`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from hiera_video.errors import ConfigError, DecodeError
from hiera_video.video.container import check_request
from hiera_video.video.pyav import PyAVReader
from hiera_video.video.reader import Frames, Limits, LockedReader, VideoInfo, unreadable
from hiera_video.video.trial import failure_of_kind

DECORD_CONTAINERS = ("mov", "matroska", "flv")
"""In others decord's seeking returns wrong frames without an error: MPEG-TS, AVI, MPEG-PS."""
DECORD_FROM_START = ("avi",)
"""Containers in which decord is right as long as it does not seek."""
DECORD_CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mjpeg", "ffv1")
TORCHCODEC_REFUSED = ("mpeg", "mpegts", "avi")
"""Containers whose packets may lack times; in some such files torchcodec returns wrong frames."""


class PixelDecoder(Protocol):
    """Adapter of another library's decoder."""

    name: str

    def __init__(self, path: str, video: PyAVReader) -> None: ...

    @staticmethod
    def known_failure(video: PyAVReader) -> str | None:
        """Return the property of `video` that the decoder is known to get wrong, if any."""

    def __len__(self) -> int: ...

    def get(self, indices: Sequence[int]) -> Any:
        """Decode frames: uint8 [T, H, W, 3]."""


class ThirdPartyReader(LockedReader):
    """Reader with another library's pixels; implements `reader.VideoReader`.

    Args:
        path: The video file.
        decoder: The library's adapter.
        limits: Limits on frame size and memory.

    Raises:
        DecodeError: The video is unreadable, or the library is known or found to get it wrong.
        ConfigError: The library is not installed.
    """

    def __init__(
        self, path: str, decoder: type[PixelDecoder], *, limits: Limits | None = None
    ) -> None:
        super().__init__(path)
        self._limits = limits or Limits()
        self._name = decoder.name
        self._pyav = PyAVReader(path, limits=self._limits, kept_bytes=0)
        with self.close_on_error():
            if (failure := decoder.known_failure(self._pyav)) is not None:
                raise self._backend_error(f"returns wrong frames for {failure}")
            absolute = os.path.abspath(path)  # noqa: PTH100
            self._pixels = self._guard(lambda: decoder(absolute, self._pyav))
            if len(self._pixels) != len(self.times):
                counts = f"{len(self._pixels)} frames instead of {len(self.times)}"
                raise self._backend_error(f"counts {counts}")
            failure = self._guard(
                lambda: failure_of_kind(
                    decoder.name, self._pyav, lambda: decoder(absolute, self._pyav)
                )
            )
            if failure is not None:
                raise self._backend_error(f"{failure} in videos of this kind, as a trial shows")

    @property
    def times(self) -> Sequence[float]:
        """Presentation time of each frame in seconds, ascending."""
        return self._pyav.times

    @property
    def fps(self) -> float:
        """Average frame rate."""
        return self._pyav.fps

    def _read_info(self) -> VideoInfo:
        return self._pyav.info

    def _read_frames(self, indices: list[int]) -> Frames:
        info = self.info
        check_request(self._path, indices, len(self.times), info.width, info.height, self._limits)
        if not indices:
            return np.empty((0, info.height, info.width, 3), np.uint8)
        found: Frames = self._guard(lambda: self._pixels.get(indices))
        if found.shape != (len(indices), info.height, info.width, 3):
            sizes = f"{found.shape[2]}x{found.shape[1]} instead of {info.width}x{info.height}"
            raise self._backend_error(f"returns frames of {sizes}")
        return found

    def _release(self) -> None:
        self.__dict__.pop("_pixels", None)  # neither library has a method to close a decoder
        self._pyav.close()

    def _guard(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (ConfigError, DecodeError):
            raise
        except Exception as error:  # decord's exceptions share no base class
            lines = str(error).strip().splitlines()
            detail = lines[0] if lines else type(error).__name__
            raise self._backend_error(f"fails ({detail})") from error

    def _backend_error(self, failure: str) -> DecodeError:
        message = f"{self._name} {failure}; set data.decoder=pyav"
        return unreadable(self._path, "backend", message)


def _is_in(containers: Sequence[str], video: PyAVReader) -> bool:
    return any(name in video.container for name in containers)


class _Decord:
    name = "decord"

    def __init__(self, path: str, video: PyAVReader) -> None:
        try:
            import decord
        except ImportError as error:
            raise ConfigError(
                "data.decoder=decord: decord is not installed; `pip install decord` (only for "
                "Linux on x86-64), or set data.decoder=pyav"
            ) from error
        decord.logging.set_level(decord.logging.QUIET)
        self._open: Callable[[], Any] = partial(decord.VideoReader, path, num_threads=1)
        self._reader: Any = self._open()
        self._seeks = not _is_in(DECORD_FROM_START, video)

    @staticmethod
    def known_failure(video: PyAVReader) -> str | None:
        from_start = video.codec == "h264" and _is_in(DECORD_FROM_START, video)
        if not from_start and not _is_in(DECORD_CONTAINERS, video):
            return f"the container {video.container}"
        if video.codec not in DECORD_CODECS:
            return f"{video.codec} video"
        if video.codec == "h264" and video.has_open_gops and not from_start:
            return "open GOPs"
        return None

    def __len__(self) -> int:
        return len(self._reader)

    def get(self, indices: Sequence[int]) -> Any:
        if self._seeks:
            return self._reader.get_batch(list(indices)).asnumpy()
        reader, frames = self._open(), dict[int, Any]()
        for index in range(max(indices) + 1):
            frame = reader.next()
            if index in indices:
                frames[index] = frame.asnumpy()
        return np.stack([frames[index] for index in indices])


class _TorchCodec:
    name = "torchcodec"

    def __init__(self, path: str, video: PyAVReader) -> None:
        try:
            from torchcodec.decoders import VideoDecoder
        except (ImportError, RuntimeError) as error:  # RuntimeError: FFmpeg's libraries are missing
            raise ConfigError(
                "data.decoder=torchcodec: torchcodec or FFmpeg's libraries are not installed; "
                "`apt-get install ffmpeg` and `pip install 'hiera-video[torchcodec]'`, or set "
                "data.decoder=pyav"
            ) from error
        self._decoder: Any = VideoDecoder(
            path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact"
        )

    @staticmethod
    def known_failure(video: PyAVReader) -> str | None:
        if video.container in TORCHCODEC_REFUSED:
            return f"the container {video.container}"
        # FFmpeg reads VP8 as if the range were limited, whatever the container says
        if video.codec != "vp8" and video.stream_facts.is_full_range:
            return f"full-range colours in {video.codec} video"
        return None

    def __len__(self) -> int:
        return len(self._decoder)

    def get(self, indices: Sequence[int]) -> Any:
        return self._decoder.get_frames_at(indices=list(indices)).data.numpy()


THIRD_PARTY: dict[str, type[PixelDecoder]] = {"decord": _Decord, "torchcodec": _TorchCodec}
