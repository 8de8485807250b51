"""Videos stored as folders of numbered pictures (MMAction2's rawframes, PySlowFast's frame lists).

    k400_frames/abseiling/0347ZoDXyP0/img_00001.jpg … img_00300.jpg

The numbers must be consecutive: all frames after a missing picture would be one position too early.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from hiera_video.errors import DecodeError
from hiera_video.utils.remote_files import is_url
from hiera_video.video.container import URL, check_request
from hiera_video.video.options import FrameFolder
from hiera_video.video.reader import Frames, Limits, LockedReader, VideoInfo, unreadable

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")


class FolderReader(LockedReader):
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
        super().__init__(path)
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

    def _read_info(self) -> VideoInfo:
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

    def _read_frames(self, indices: list[int]) -> Frames:
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

    def _read_file(self, name: str) -> bytes:
        path = os.path.join(self._path, name)  # noqa: PTH118 (a hot path)
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise unreadable(self._path, "not_a_file", f"{name} is not a file")
            if status.st_size > self._limits.max_bytes:
                raise unreadable(
                    self._path, "too_large", f"{name} has {status.st_size} bytes, over the limit"
                )
            return file.read()

    def _open(self, index: int) -> Image.Image:
        """Open a picture and check its size; its pixels are not decoded yet."""
        name = self._names[index]
        try:
            # read into memory first, so that PIL never keeps a file open
            content = BytesIO(self._read_file(name))
            picture = Image.open(content, formats=FORMATS)
        except DecodeError:
            raise
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


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; a pipe too, without waiting for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _frame_names(path: str, naming: FrameFolder) -> list[str]:
    """Return the pictures' file names in the order of their numbers."""
    found: dict[int, str] = {}
    example: dict[tuple[str, str], str] = {}  # one name per prefix and suffix
    pattern = naming.pattern()
    names, links = _list_folder(path)
    for name in names:
        match = pattern.fullmatch(name)
        if match is None or name.startswith("."):
            continue
        number = int(match["number"])
        if naming.first is not None and number < naming.first:
            continue
        example.setdefault((match["prefix"], match["suffix"]), name)
        other = found.setdefault(number, name)
        if other != name and len(example) == 1:
            message = f"contains two pictures of one frame ({other}, {name}); remove one"
            raise unreadable(path, "corrupt", message)
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
    if links and not naming.follow_links:
        _check_links(path, sorted(links & set(found.values())))
    return [found[number] for number in range(first, first + len(found))]


def _check_links(path: str, links: Sequence[str]) -> None:
    """Check that pictures that are links stay inside the folder."""
    folder = os.path.realpath(path)
    for name in links:
        target = os.path.realpath(os.path.join(folder, name))  # noqa: PTH118 (a hot path)
        if not target.startswith(folder.rstrip(os.sep) + os.sep):
            message = f"{name} is a link that leaves the folder; set data.follow_links=true to read"
            raise unreadable(path, "permission", f"{message} such pictures")


def _list_folder(path: str) -> tuple[list[str], set[str]]:
    """Return the sorted names of a folder's entries, and those that are symbolic links."""
    try:
        with os.scandir(path) as entries:
            found = {entry.name: entry.is_symlink() for entry in entries}
        return sorted(found), {name for name, is_link in found.items() if is_link}
    except FileNotFoundError as error:
        message = URL if is_url(path) else "no such folder of frames"
        raise unreadable(path, "missing", message) from error
    except NotADirectoryError as error:
        message = (
            "not a folder of pictures, as data.decoder=frames needs; set it to pyav for videos"
        )
        raise unreadable(path, "not_a_file", message) from error
    except OSError as error:
        raise unreadable(path, "permission", f"cannot be read ({error.strerror})") from error
