"""Orientation of frames by their display matrix, as FFmpeg's command line shows them."""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame

from hiera_video.video.reader import Frames

logger = logging.getLogger(__name__)


class Orientation(NamedTuple):
    """One of the eight ways to put a stored frame upright."""

    quarter_turns: int = 0
    """Counter-clockwise turns by 90 degrees, 0 to 3."""
    mirrored: bool = False
    """True if left and right are exchanged after turning."""

    def apply(self, picture: Frames) -> Frames:
        """Return a view of the stored frame [H, W, 3] that is upright."""
        turned = np.rot90(picture, self.quarter_turns)
        return turned[:, ::-1] if self.mirrored else turned


class LayoutUnknown(Exception):
    """The first frame must be decoded to know the layout."""


class FrameLayout(NamedTuple):
    """Size and orientation of all frames of a video; those of its first frame."""

    height: int
    width: int
    orientation: Orientation

    @property
    def upright_size(self) -> tuple[int, int]:
        """Height and width of the upright frame."""
        lies = self.orientation.quarter_turns % 2
        return (self.width, self.height) if lies else (self.height, self.width)


def frame_orientation(frame: VideoFrame, path: str) -> Orientation:
    """Return the orientation of a decoded frame; log an angle between quarter turns.

    Args:
        frame: The frame, with or without a display matrix.
        path: The video's path, for the log.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(data, SideData):
        return Orientation()
    matrix = struct.unpack("=9i", bytes(data)[:36])
    found = matrix_orientation(matrix)
    if found is None:
        _log_angle(path, display_angle(matrix))
    return found or Orientation()


def matrix_orientation(matrix: Sequence[int]) -> Orientation | None:
    """Return the orientation that a display matrix means; None for an angle between quarter turns.

    A matrix that maps all pixels to a line or a point is nonsense and means upright.

    Args:
        matrix: Rows (a, b, u), (c, d, v), (x, y, w) in fixed point, as in ISO 14496-12.

    >>> matrix_orientation((0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30))
    Orientation(quarter_turns=3, mirrored=False)
    """
    _, _, _, c, d = matrix[:5]
    angle = display_angle(matrix)
    if angle is None:
        return Orientation()
    if angle == 90:
        return Orientation(3, mirrored=c > 0)
    if angle == 180:
        return Orientation(2) if d < 0 else Orientation(0, mirrored=True)
    if angle == 270:
        return Orientation(1, mirrored=c < 0)
    if angle == 0:
        return Orientation(2, mirrored=True) if d < 0 else Orientation()
    return None


def display_angle(matrix: Sequence[int]) -> int | None:
    """Return the matrix's clockwise rotation in degrees, 0 to 359; None if it has none."""
    a, b, _, c, d = matrix[:5]
    scales = math.hypot(a, c), math.hypot(b, d)
    if not all(scales):
        return None
    return round(math.degrees(math.atan2(b / scales[1], a / scales[0]))) % 360


@lru_cache(maxsize=4096)  # once a video, not once an epoch
def _log_angle(path: str, angle: int | None) -> None:
    logger.warning(
        "%s: its display matrix turns the frames by %s degrees; only quarter turns are applied, "
        "so the frames stay as they are stored",
        path,
        angle,
    )
