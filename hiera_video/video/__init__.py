"""The only reader and writer of video: `open_video`, and `encode.write_video`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hiera_video.errors import ConfigError
from hiera_video.video.arguments import video_path
from hiera_video.video.options import Backend, FrameFolder, IndexedPyAV, ShardVideo

if TYPE_CHECKING:
    from hiera_video.video.reader import VideoReader

BACKENDS = ("pyav", "decord", "torchcodec", "frames")


def open_video(path: str | Path | ShardVideo, backend: Backend = "pyav") -> VideoReader:
    """Open a video for exact, random access to its frames.

    Use the reader in a `with` statement, or close it after use. Threads may share it: it reads for
    one of them at a time, so that a reader for each thread is faster.

    >>> with open_video("a.mp4") as video:                              # doctest: +SKIP
    ...     video.info.num_frames, video.frames([0, 4, 8]).shape
    (300, (3, 256, 340, 3))

    Args:
        path: A video file, a video in a tar shard (`train-000000.tar!name.mp4`, or a `ShardVideo`
            with its offset), or a folder of pictures for the `frames` backend.
        backend: The decoder:

            - `pyav` (default): reads every supported file and the only one that reads shards. All
              frames are exact, also after seeking.
            - `decord`: optional; refuses files for which it is known, or found by a trial on the
              first file of each kind, to return wrong frames.
            - `torchcodec`: optional; refuses MPEG-PS, MPEG-TS and AVI files, and by trial as above.
            - `frames`: a folder of numbered pictures; a `FrameFolder` says how they are named.
            - an `IndexedPyAV`: `pyav` with a packet index, which makes opening faster.

    Returns:
        The open video, with the properties `info`, `fps` and `times` and the method `frames`.

    Raises:
        DecodeError: The video cannot be read; its `reason` is one of
            `hiera_video.video.reader.REASONS`.
        ConfigError: `path` is no path; the backend is unknown, not installed, or cannot read
            shards; or the packet index is damaged.
    """
    index = None
    if isinstance(backend, IndexedPyAV):
        name, index = "pyav", backend.index
    else:
        name = "frames" if isinstance(backend, FrameFolder) else backend
    if name not in BACKENDS:
        raise ConfigError(f"unknown decoder {name!r}; choose one of {', '.join(BACKENDS)}")
    if not isinstance(path, ShardVideo):
        path = video_path(path, "a ShardVideo, or the `source` of a record")
    if name == "pyav":
        from hiera_video.video.pyav import PyAVReader

        return PyAVReader(path, index=index)
    if isinstance(path, ShardVideo):
        raise ConfigError(
            f"{path.path}: data.decoder={name} does not read videos in shards; "
            "set data.decoder=pyav"
        )
    if name == "frames":
        from hiera_video.video.frame_folder import FolderReader

        naming = backend if isinstance(backend, FrameFolder) else FrameFolder()
        return FolderReader(path, naming)
    from hiera_video.video.third_party import THIRD_PARTY, ThirdPartyReader

    return ThirdPartyReader(path, THIRD_PARTY[name])
