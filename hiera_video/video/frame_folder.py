"""Videos stored as folders of numbered pictures (MMAction2's rawframes, PySlowFast's frame lists).

    k400_frames/abseiling/0347ZoDXyP0/img_00001.jpg … img_00300.jpg

The numbers must be consecutive: all frames after a missing picture would be one position too early.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from hiera_video.video.container import check_request
from hiera_video.video.options import FrameFolder
from hiera_video.video.reader import Closeable, Frames, Limits, VideoInfo, unreadable

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")


class FolderReader(Closeable):
    """Reader of a folder of pictures; implements `reader.VideoReader`.

    Times and frame rate come from `naming.fps`, as pictures have none.

    Args:
        path: The folder.
        naming: File names and frame rate.
        limits: Limits on frame size and memory.

    Raises:
        DecodeError: The folder is missing, has no such pictures, or their numbers have a gap.
    """

    def __init__(self, path: str, naming: FrameFolder, *, limits: Limits | None = None) -> None:
        self._path = path
        self._limits = limits or Limits()
        self._fps = naming.fps
        self._names = _frame_names(path, naming)
        self._times = tuple(number / naming.fps for number in range(len(self._names)))
        self._first_size: tuple[int, int] | None = None

    @property
    def times(self) -> Sequence[float]:
        """Presentation time of each frame in seconds, ascending."""
        return self._times

    @property
    def fps(self) -> float:
        """Frame rate."""
        return self._fps

    @property
    def info(self) -> VideoInfo:
        """Properties of the video; the first use opens one picture."""
        height, width = self._size()
        return VideoInfo(
            num_frames=len(self._names),
            fps=self._fps,
            width=width,
            height=height,
            rotation=0,
            duration_seconds=len(self._names) / self._fps,
            codec="frames",
        )

    def frames(self, indices: Sequence[int]) -> Frames:
        """Read the frames at `indices`; see `reader.VideoReader.frames`."""
        height, width = self._size()
        check_request(self._path, indices, len(self._names), width, height, self._limits)
        out = np.empty((len(indices), height, width, 3), np.uint8)
        first_position: dict[int, int] = {}
        for position, index in enumerate(indices):
            if index in first_position:
                out[position] = out[first_position[index]]
                continue
            picture = self._read(index)
            if picture.shape != out.shape[1:]:
                raise unreadable(
                    self._path,
                    "corrupt",
                    f"{self._names[index]} is {picture.shape[1]}x{picture.shape[0]}, the first "
                    f"frame {width}x{height}; all must have one size",
                )
            out[position] = picture
            first_position[index] = position
        return out

    def _size(self) -> tuple[int, int]:
        if self._first_size is None:
            with self._open(0) as picture:
                self._first_size = (picture.height, picture.width)
        return self._first_size

    def _read(self, index: int) -> Frames:
        with self._open(index) as picture:
            try:
                return np.asarray(picture.convert("RGB"))
            except (OSError, SyntaxError, ValueError) as error:
                message = f"{self._names[index]} cannot be decoded ({error})"
                raise unreadable(self._path, "corrupt", message) from error

    def _open(self, index: int) -> Image.Image:
        """Open a picture and check its size; its pixels are not decoded yet."""
        name = self._names[index]
        try:
            # read into memory first, so that PIL never keeps a file open
            content = BytesIO(Path(self._path, name).read_bytes())
            picture = Image.open(content, formats=FORMATS)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            message = f"{name} cannot be decoded ({error})"
            raise unreadable(self._path, "corrupt", message) from error
        if picture.width * picture.height > self._limits.max_pixels:
            raise unreadable(
                self._path,
                "too_large",
                f"{name} of {picture.width}x{picture.height} is over the limit of "
                f"{self._limits.max_pixels} pixels",
            )
        return picture


def _frame_names(path: str, naming: FrameFolder) -> list[str]:
    """Return the pictures' file names in the order of their numbers."""
    found: dict[int, str] = {}
    example: dict[tuple[str, str], str] = {}  # one name per prefix and suffix
    pattern = naming.pattern()
    for name in _list_folder(path):
        match = pattern.fullmatch(name)
        if match is None or (naming.first is not None and int(match["number"]) < naming.first):
            continue
        example.setdefault((match["prefix"], match["suffix"]), name)
        found[int(match["number"])] = name
    if not found:
        kind = naming.template or "pictures with numbers in their names"
        raise unreadable(path, "no_frames", f"contains no {kind}; check data.frame_template")
    if len(example) > 1:
        one, other = sorted(example.values())[:2]
        message = f"contains pictures of several names ({one}, {other}); set data.frame_template"
        raise unreadable(path, "corrupt", message)
    first = naming.first if naming.first is not None else min(found)
    for number in range(first, first + len(found)):
        if number not in found:
            message = f"has no frame {number}, but frames up to {max(found)}; create it again"
            raise unreadable(path, "truncated", message)
    return [found[number] for number in range(first, first + len(found))]


def _list_folder(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))  # noqa: PTH208 (a hot path)
    except FileNotFoundError as error:
        raise unreadable(path, "missing", "no such folder of frames") from error
    except NotADirectoryError as error:
        message = (
            "not a folder of pictures, as data.decoder=frames needs; set it to pyav for videos"
        )
        raise unreadable(path, "not_a_file", message) from error
    except OSError as error:
        raise unreadable(path, "permission", f"cannot be read ({error.strerror})") from error
