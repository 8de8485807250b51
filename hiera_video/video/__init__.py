"""The only reader of video. `open_video(path)` gives `.info` and `.frames(indices)`; every failure is a `DecodeError`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hiera_video.errors import ConfigError
from hiera_video.video.options import Backend, FrameFolder, IndexedPyAV, ShardVideo

if TYPE_CHECKING:
    from hiera_video.video.reader import VideoReader

BACKENDS = ("pyav", "decord", "torchcodec", "frames")


def open_video(path: str | Path | ShardVideo, backend: Backend = "pyav") -> VideoReader:
    """Open the video at `path`, or in a tar shard (`train-000000.tar!name.mp4`). Close it after use, or open it in a
    `with` statement.

    >>> with open_video("a.mp4") as video:
    ...     video.info.num_frames, video.frames([0, 4, 8]).shape        # doctest: +SKIP
    (300, (3, 256, 340, 3))

    `backend`: `pyav`; `decord` or `torchcodec`, where installed; `frames` for a folder of pictures, or a `FrameFolder`
    that says how they are named; an `IndexedPyAV` for pyav with an index of packets. Raises `DecodeError`, whose `reason` is one of
    `hiera_video.video.reader.REASONS`, and `ConfigError` where a decoder is not installed.
    """
    index = backend.index if isinstance(backend, IndexedPyAV) else None
    name = (
        "frames"
        if isinstance(backend, FrameFolder)
        else "pyav"
        if isinstance(backend, IndexedPyAV)
        else backend
    )
    if name not in BACKENDS:
        raise ConfigError(f"unknown decoder {name!r}; choose one of {', '.join(BACKENDS)}")
    if name == "pyav":
        from hiera_video.video.pyav import PyAVReader

        return PyAVReader(path if isinstance(path, ShardVideo) else str(path), index=index)
    if isinstance(path, ShardVideo):
        raise ConfigError(
            f"{path.path}: data.decoder={name} does not read videos in shards; set data.decoder=pyav"
        )
    if name == "frames":
        from hiera_video.video.frame_folder import FolderReader

        return FolderReader(
            str(path), backend if isinstance(backend, FrameFolder) else FrameFolder()
        )
    from hiera_video.video.third_party import THIRD_PARTY, ThirdPartyReader

    return ThirdPartyReader(str(path), THIRD_PARTY[name])
