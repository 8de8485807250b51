"""decord and torchcodec behind our protocol, held to what the packets say.

PyAV reads the file's packets first (nothing is decoded), with all its guards: what kinds of files are opened, how large
pictures may be. Count and times of the frames come from there; the other decoder gives pixels alone. Where it counts
other frames than there are (decord, in files that were cut by stream copy), the file is refused: no frame of such a
file could be trusted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from hiera_video.data.decode.opening import check_request
from hiera_video.data.decode.protocol import Frames, Limits, VideoInfo, broken
from hiera_video.data.decode.pyav import PyAVReader
from hiera_video.errors import ConfigError, DecodeError


class Pixels(Protocol):
    """What is borrowed from the other decoder."""

    name: str

    def __len__(self) -> int: ...

    def get(self, indices: Sequence[int]) -> Any: ...


class BorrowedReader:
    """Pixels of another decoder, facts of PyAV; see `protocol.VideoReader`."""

    def __init__(self, path: str, decoder: Callable[[str], Pixels], *, limits: Limits | None = None) -> None:
        self._path = path
        self._limits = limits or Limits()
        self._facts = PyAVReader(path, limits=self._limits, kept_bytes=0)
        try:
            self._pixels = self._guarded(lambda: decoder(os.path.abspath(path)))  # noqa: PTH100
            if len(self._pixels) != len(self.times):
                raise broken(
                    path,
                    "backend",
                    f"{self._pixels.name} counts {len(self._pixels)} frames where there are {len(self.times)}; "
                    "set data.decoder=pyav",
                )
        except BaseException:
            self.close()
            raise

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
            raise broken(
                self._path,
                "backend",
                f"{self._pixels.name} gives frames of {found.shape[2]}x{found.shape[1]} where they are "
                f"{info.width}x{info.height}; set data.decoder=pyav",
            )
        return found

    def _guarded(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except (ConfigError, DecodeError):
            raise
        except Exception as error:  # decord's errors share no base with anything
            detail = str(error).strip().splitlines()
            words = f"cannot be decoded ({detail[0] if detail else type(error).__name__})"
            raise broken(self._path, "corrupt", words) from error

    def close(self) -> None:
        self.__dict__.pop("_pixels", None)  # neither of the two has a method to close
        self._facts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
        self._decoder: Any = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")

    def __len__(self) -> int:
        return len(self._decoder)

    def get(self, indices: Sequence[int]) -> Any:
        return self._decoder.get_frames_at(indices=list(indices)).data.numpy()


BORROWED: dict[str, Callable[[str], Pixels]] = {"decord": _Decord, "torchcodec": _TorchCodec}
