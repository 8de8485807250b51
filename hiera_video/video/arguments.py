"""Checks of what callers pass: the video, frame numbers, and the words for what is refused."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable
from typing import Any, SupportsIndex

from hiera_video.errors import ConfigError
from hiera_video.utils.text_files import shorten

NAMES = {"ndarray": "an array", "Tensor": "a tensor", "bytes": "bytes"}
"""Class → how messages call its objects, where that is not its name."""


def describe(value: object) -> str:
    """Return one short line that says what a value is, for a message that refuses it.

    >>> import numpy as np
    >>> describe(None), describe(3.5), describe([1, 2]), describe(np.zeros((2, 3)))
    ('None', '3.5', 'a list', 'an array [2, 3] of float64')
    """
    if value is None or isinstance(value, bool | int | float | str | slice):
        return " ".join(shorten(value).split())
    name = type(value).__name__
    text = NAMES.get(name) or f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        return text
    return f"{text} {list(shape)} of {str(dtype).removeprefix('torch.')}"


def video_path(video: object, others: str) -> str:
    """Return the path of a video as text.

    Args:
        video: Text or an `os.PathLike`.
        others: What the caller takes besides paths, for the message.

    Raises:
        ConfigError: It is neither: bytes, say, may as well be the content of a file.
    """
    path = os.fspath(video) if isinstance(video, str | os.PathLike) else None
    if not isinstance(path, str) or not path:
        raise ConfigError(
            f"video is {describe(video)}; give the path of a file or folder of frames, {others}"
        )
    return path


def frame_numbers(path: str, indices: Iterable[SupportsIndex]) -> list[int]:
    """Return frame numbers as integers.

    Args:
        path: The video, for messages.
        indices: A list, range, array, tensor or any other iterable of integers.

    Raises:
        ConfigError: It is none of these; True and False are no numbers, and a slice is no list.

    >>> frame_numbers("a.mp4", range(0, 9, 4))
    [0, 4, 8]
    """
    # an array or tensor at once; its elements one by one would be a copy from the device each
    to_list = getattr(indices, "tolist", None)
    values: Any = indices if to_list is None else to_list()
    is_flat = len(getattr(indices, "shape", (0,))) == 1
    if not is_flat or isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise ConfigError(
            f"{path}: frames() takes a list of frame numbers, such as [0, 4, 8], not "
            f"{describe(indices)}"
        )
    return [value if type(value) is int else _as_integer(path, value) for value in values]


def _as_integer(path: str, value: Any) -> int:
    is_bool = isinstance(value, bool) or "bool" in str(getattr(value, "dtype", ""))
    try:
        if not is_bool:
            return operator.index(value)
    except TypeError:
        pass
    raise ConfigError(
        f"{path}: frame number {describe(value)} is no integer; give frames() a list such as "
        "[0, 4, 8]"
    )
