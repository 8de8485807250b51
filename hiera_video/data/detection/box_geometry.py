"""Boxes under the transforms of their pixels: jitter, mirror, random crop, the crops of a test.

Boxes of lists are shares of the frame; those of clips are in pixels of the clip.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hiera_video.data.detection.key_frame import Boxes


def jitter_boxes(boxes: Boxes, strength: float, generator: random.Random) -> Boxes:
    """Move each edge of each box by up to `strength` of its width or height, within the frame."""
    sizes = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    draws = [[generator.uniform(-strength, strength) for _ in range(4)] for _ in boxes]
    moved = (boxes + sizes * np.array(draws, np.float32).reshape(-1, 4)).clip(0, 1)
    # a strength above 0.5 may exchange two edges
    low, high = np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])
    return np.concatenate([low, high], axis=1)


def mirror_boxes(boxes: Boxes, width: float = 1.0) -> Boxes:
    """Return boxes of a mirrored frame of this width.

    >>> mirror_boxes(np.array([[0.0, 0.0, 0.25, 1.0]], np.float32)).tolist()
    [[0.75, 0.0, 1.0, 1.0]]
    """
    left, top, right, bottom = boxes.T
    return np.stack([width - right, top, width - left, bottom], axis=1)


def crop_boxes(
    boxes: Boxes,
    *,
    frame: tuple[int, int],
    crop: tuple[int, int, int, int],
    size: int,
    flip: bool,
) -> tuple[Boxes, NDArray[np.bool_]]:
    """Return boxes in pixels of a crop that is resized to a square.

    Args:
        boxes: [N, 4] in shares of the frame.
        frame: Its height and width in pixels.
        crop: Top, left, height and width of the crop in pixels of the frame.
        size: Side of the square.
        flip: The square is mirrored afterwards.

    Returns:
        Boxes [M, 4], clipped to the square, of those whose centre lies in it; and which of the N
        these are.
    """
    (height, width), (top, left, crop_height, crop_width) = frame, crop
    pixels = boxes * np.array([width, height] * 2, np.float32)
    offset = np.array([left, top] * 2, np.float32)
    scale = np.array([size / crop_width, size / crop_height] * 2, np.float32)
    moved = (pixels - offset) * scale
    centres = (moved[:, :2] + moved[:, 2:]) / 2
    inside: NDArray[np.bool_] = np.all((centres >= 0) & (centres <= size), axis=1)
    kept: Boxes = moved[inside].clip(0, size)
    return (mirror_boxes(kept, size) if flip else kept), inside


def assign_crops(
    boxes: Boxes, *, frame: tuple[int, int], offsets: Sequence[tuple[int, int]], size: int
) -> tuple[NDArray[np.int64], Boxes]:
    """Choose for each box the crop of a test that shows most of it.

    Of crops that show it equally well, the one whose centre is nearest to the box's.

    Args:
        boxes: [N, 4] in shares of the frame.
        frame: Height and width of the resized frame in pixels.
        offsets: Top and left of each crop in it.
        size: Side of the crops.

    Returns:
        [N] number of the crop, and [N, 4] boxes in pixels of that crop, clipped to it. A box
        outside every crop becomes one without area at the border of the nearest.
    """
    height, width = frame
    pixels = boxes * np.array([width, height] * 2, np.float32)
    corners = np.array([(left, top, left, top) for top, left in offsets], np.float32)
    in_crops = (pixels[:, None] - corners).clip(0, size)  # [N, crops, 4]
    areas = (in_crops[..., 2:] - in_crops[..., :2]).prod(axis=-1)
    centres = (pixels[:, None, :2] + pixels[:, None, 2:]) / 2 - corners[:, :2]
    distances = np.abs(centres - size / 2).sum(axis=-1)
    best = np.lexsort((distances, -areas), axis=1)[:, 0] if len(boxes) else np.zeros(0, np.int64)
    return best, in_crops[np.arange(len(boxes)), best]
