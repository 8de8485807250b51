"""Videos that were taken apart: a folder of numbered pictures, as MMAction2's rawframes and PySlowFast's lists have it.

    k400_frames/abseiling/0347ZoDXyP0/img_00001.jpg … img_00300.jpg

The numbers must follow each other without a gap: a missing picture would silently play the rest too early.
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


class FolderReader(Closeable):
    """A folder of frames; see `protocol.VideoReader`."""

    def __init__(self, path: str, naming: FrameFolder, *, limits: Limits | None = None) -> None:
        self._path = path
        self._limits = limits or Limits()
        self._fps = naming.fps
        self._names = _frame_names(path, naming)
        self._times = tuple(number / naming.fps for number in range(len(self._names)))
        self._size: tuple[int, int] | None = None

    @property
    def times(self) -> Sequence[float]:
        return self._times

    @property
    def fps(self) -> float:
        return self._fps

    @property
    def info(self) -> VideoInfo:
        height, width = self._first_size()
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
        height, width = self._first_size()
        check_request(self._path, indices, len(self._names), width, height, self._limits)
        out = np.empty((len(indices), height, width, 3), np.uint8)
        places: dict[int, int] = {}
        for place, index in enumerate(indices):
            if index in places:
                out[place] = out[places[index]]
                continue
            picture = self._read(index)
            if picture.shape != out.shape[1:]:
                raise unreadable(
                    self._path,
                    "corrupt",
                    f"{self._names[index]} is {picture.shape[1]}x{picture.shape[0]}, the first frame {width}x{height}; "
                    "all must have one size",
                )
            out[place] = picture
            places[index] = place
        return out

    def _first_size(self) -> tuple[int, int]:
        if self._size is None:
            with self._open(0) as picture:
                self._size = (picture.height, picture.width)
        return self._size

    def _read(self, index: int) -> Frames:
        with self._open(index) as picture:
            try:
                return np.asarray(picture.convert("RGB"))
            except (OSError, SyntaxError, ValueError) as error:
                raise unreadable(
                    self._path, "corrupt", f"{self._names[index]} cannot be decoded ({error})"
                ) from error

    def _open(self, index: int) -> Image.Image:
        """The picture's header, checked: nothing is decoded yet."""
        name = self._names[index]
        try:
            # read at once: PIL keeps no file open then, whatever happens
            picture = Image.open(
                BytesIO(Path(self._path, name).read_bytes()), formats=("JPEG", "PNG", "BMP", "WEBP")
            )
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise unreadable(
                self._path, "corrupt", f"{name} cannot be decoded ({error})"
            ) from error
        if picture.width * picture.height > self._limits.max_pixels:
            raise unreadable(
                self._path,
                "too_large",
                f"{name} of {picture.width}x{picture.height} is over the limit of {self._limits.max_pixels} pixels",
            )
        return picture


def _frame_names(path: str, naming: FrameFolder) -> list[str]:
    """File names in the order of their numbers."""
    try:
        names = sorted(os.listdir(path))  # noqa: PTH208 (a hot path)
    except FileNotFoundError as error:
        raise unreadable(path, "missing", "no such folder of frames") from error
    except NotADirectoryError as error:
        words = (
            "is a file; data.decoder=frames reads folders of pictures, set it to pyav for videos"
        )
        raise unreadable(path, "not_a_file", words) from error
    except OSError as error:
        raise unreadable(path, "permission", f"may not be read ({error.strerror})") from error
    pattern = naming.pattern()
    found: dict[int, str] = {}
    kinds: dict[tuple[str, str], str] = {}
    for name in names:
        match = pattern.fullmatch(name)
        if match is None or (naming.first is not None and int(match["number"]) < naming.first):
            continue
        kinds.setdefault((match["prefix"], match["suffix"]), name)
        found[int(match["number"])] = name
    if not found:
        wanted = naming.template or "pictures with numbers in their names"
        raise unreadable(
            path, "no_frames", f"holds none of {wanted}; is data.frame_template right?"
        )
    if len(kinds) > 1:
        one, other = sorted(kinds.values())[:2]
        raise unreadable(
            path,
            "corrupt",
            f"holds pictures of several names ({one}, {other}); set data.frame_template",
        )
    first = naming.first if naming.first is not None else min(found)
    for number in range(first, first + len(found)):
        if number not in found:
            raise unreadable(
                path,
                "truncated",
                f"has no frame {number}, but frames up to {max(found)}; make it again",
            )
    return [found[number] for number in range(first, first + len(found))]
