"""decord and torchcodec behind our protocol, held to what the packets say.

PyAV reads the file's packets first (nothing is decoded), with all its guards: what kinds of files are opened, how large
pictures may be. Count and times of the frames come from there; the other decoder gives pixels alone. Where it counts
other frames than there are (decord, in files that were cut by stream copy), or is known to show wrong ones without an
error, the file is refused with the reason `backend`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from hiera_video.errors import ConfigError, DecodeError
from hiera_video.video.container import check_request
from hiera_video.video.pyav import PyAVReader
from hiera_video.video.reader import Closeable, Frames, Limits, VideoInfo, unreadable

# Elsewhere decord's seeking lands on other frames than asked for, without an error: MPEG-TS, AVI, MPEG-1, -2 and -4 …
DECORD_CONTAINERS = ("mov", "matroska", "flv")
# … and torchcodec's in some of these, whose packets do not all carry times.
TORCHCODEC_DOUBTS = ("mpeg", "mpegts", "avi")
DECORD_CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mjpeg", "ffv1")


class Pixels(Protocol):
    """What is borrowed from the other decoder."""

    name: str

    def __init__(self, path: str) -> None: ...

    @staticmethod
    def doubts(facts: PyAVReader) -> str | None:
        """What of this file the decoder is known to get wrong."""

    def __len__(self) -> int: ...

    def get(self, indices: Sequence[int]) -> Any: ...


class ThirdPartyReader(Closeable):
    """Pixels of another decoder, facts of PyAV; see `protocol.VideoReader`."""

    def __init__(self, path: str, decoder: type[Pixels], *, limits: Limits | None = None) -> None:
        self._path = path
        self._limits = limits or Limits()
        self._facts = PyAVReader(path, limits=self._limits, kept_bytes=0)
        with self.close_on_error():
            if (doubt := decoder.doubts(self._facts)) is not None:
                raise unreadable(
                    path,
                    "backend",
                    f"{decoder.name} shows wrong frames of {doubt}; set data.decoder=pyav",
                )
            self._name = decoder.name
            self._pixels = self._guarded(lambda: decoder(os.path.abspath(path)))  # noqa: PTH100
            if len(self._pixels) != len(self.times):
                raise self._refusal(
                    f"counts {len(self._pixels)} frames where there are {len(self.times)}"
                )

    @property
    def times(self) -> Sequence[float]:
        return self._facts.times

    @property
    def fps(self) -> float:
        return self._facts.fps

    @property
    def info(self) -> VideoInfo:
        return self._facts.info

    def frames(self, indices: Sequence[int]) -> Frames:
        info = self.info
        check_request(self._path, indices, len(self.times), info.width, info.height, self._limits)
        if not indices:
            return np.empty((0, info.height, info.width, 3), np.uint8)
        found: Frames = self._guarded(lambda: self._pixels.get(indices))
        if found.shape != (len(indices), info.height, info.width, 3):
            raise self._refusal(
                f"gives frames of {found.shape[2]}x{found.shape[1]} where they are {info.width}x{info.height}"
            )
        return found

    def _guarded(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except (ConfigError, DecodeError):
            raise
        except Exception as error:  # decord's errors share no base with anything
            detail = str(error).strip().splitlines()
            raise self._refusal(
                f"fails ({detail[0] if detail else type(error).__name__})"
            ) from error

    def _refusal(self, what: str) -> DecodeError:
        return unreadable(self._path, "backend", f"{self._name} {what}; set data.decoder=pyav")

    def close(self) -> None:
        self.__dict__.pop("_pixels", None)  # neither of the two has a method to close
        self._facts.close()


class _Decord:
    name = "decord"

    def __init__(self, path: str) -> None:
        try:
            import decord
        except ImportError as error:
            raise ConfigError(
                "data.decoder=decord: decord is not installed; `pip install decord` (Linux on x86-64 alone), "
                "or set data.decoder=pyav"
            ) from error
        decord.logging.set_level(decord.logging.QUIET)
        self._reader: Any = decord.VideoReader(path, num_threads=1)

    @staticmethod
    def doubts(facts: PyAVReader) -> str | None:
        if not any(name in facts.container for name in DECORD_CONTAINERS):
            return f"files of the kind {facts.container}"
        if facts.codec not in DECORD_CODECS:
            return f"{facts.codec} video"
        if facts.codec == "h264" and facts.has_open_gops:
            return "groups of pictures that lean on each other (open GOP)"
        return None

    def __len__(self) -> int:
        return len(self._reader)

    def get(self, indices: Sequence[int]) -> Any:
        return self._reader.get_batch(list(indices)).asnumpy()


class _TorchCodec:
    name = "torchcodec"

    def __init__(self, path: str) -> None:
        try:
            from torchcodec.decoders import VideoDecoder
        except (ImportError, RuntimeError) as error:  # not there, or without FFmpeg's libraries
            raise ConfigError(
                "data.decoder=torchcodec: torchcodec or FFmpeg's libraries are not installed; "
                "`apt-get install ffmpeg` and `pip install 'hiera-video[torchcodec]'`, or set data.decoder=pyav"
            ) from error
        self._decoder: Any = VideoDecoder(
            path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact"
        )

    @staticmethod
    def doubts(facts: PyAVReader) -> str | None:
        return (
            f"files of the kind {facts.container}" if facts.container in TORCHCODEC_DOUBTS else None
        )

    def __len__(self) -> int:
        return len(self._decoder)

    def get(self, indices: Sequence[int]) -> Any:
        return self._decoder.get_frames_at(indices=list(indices)).data.numpy()


THIRD_PARTY: dict[str, type[Pixels]] = {"decord": _Decord, "torchcodec": _TorchCodec}
