"""Boxes move with the pixels of their clip."""

from __future__ import annotations

import random

import numpy as np
import pytest

from hiera_video.data.detection.box_geometry import (
    assign_crops,
    crop_boxes,
    jitter_boxes,
    mirror_boxes,
)


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def test_a_crop_scales_clips_and_drops() -> None:
    found, inside = crop_boxes(
        boxes((0, 0, 0.5, 0.5), (0.25, 0.25, 1, 1), (0.75, 0.5, 1, 1)),
        frame=(100, 200),
        crop=(20, 40, 80, 80),
        size=32,
        flip=False,
    )
    # the first box is centred at (50, 25), in the crop; the second at (125, 62); the third at 175
    assert inside.tolist() == [True, False, False]
    assert found.tolist() == [[0, 0, 24, 12]]


@pytest.mark.parametrize(
    ("flip", "expected"), [(False, [[10, 0, 32, 16]]), (True, [[0, 0, 22, 16]])]
)
def test_a_flip_mirrors_the_boxes(flip: bool, expected: list[list[float]]) -> None:
    found, _ = crop_boxes(
        boxes((0.3125, 0, 1, 0.5)), frame=(64, 64), crop=(0, 0, 64, 64), size=32, flip=flip
    )
    assert found.tolist() == expected


def test_no_boxes() -> None:
    found, inside = crop_boxes(boxes(), frame=(64, 64), crop=(0, 0, 64, 64), size=32, flip=True)
    assert found.shape == (0, 4) and inside.shape == (0,)
    assert mirror_boxes(boxes()).shape == (0, 4)
    assert jitter_boxes(boxes(), 0.1, random.Random(0)).shape == (0, 4)
    number, moved = assign_crops(boxes(), frame=(64, 64), offsets=[(0, 0)], size=64)
    assert number.shape == (0,) and moved.shape == (0, 4)


def test_jitter_stays_within_its_strength_and_the_frame() -> None:
    before = boxes((0.2, 0.4, 0.4, 0.8), (0, 0, 1, 1))
    generator, moves = random.Random(0), []
    for _ in range(100):
        found = jitter_boxes(before, 0.1, generator)
        assert found.min() >= 0 and found.max() <= 1
        moves.append(found[0] - before[0])
    assert np.abs(moves).max(axis=0) == pytest.approx([0.02, 0.04, 0.02, 0.04], rel=0.1)
    wild = [jitter_boxes(before, 1.0, generator) for _ in range(100)]
    assert all((one[:, 2:] >= one[:, :2]).all() for one in wild)


def test_each_box_goes_to_the_crop_that_shows_most_of_it() -> None:
    """A frame of 16:9 at 224 pixels, and three crops of it."""
    number, moved = assign_crops(
        boxes(
            (0, 0, 0.25, 1),  # left: 0 to 99.5
            (0.75, 0, 1, 1),  # right
            (0.45, 0.5, 0.55, 1),  # whole in all crops: the centre
            (0, 0, 1, 1),  # wider than any crop: as much in each, the centre
        ),
        frame=(224, 398),
        offsets=[(0, 0), (0, 87), (0, 174)],
        size=224,
    )
    assert number.tolist() == [0, 2, 1, 1]
    np.testing.assert_allclose(
        moved,
        boxes((0, 0, 99.5, 224), (124.5, 0, 224, 224), (92.1, 112, 131.9, 224), (0, 0, 224, 224)),
        rtol=1e-5,
    )


def test_a_box_outside_the_centre_crop_is_one_without_area_at_its_border() -> None:
    number, moved = assign_crops(
        boxes((0, 0, 0.1, 0.5)), frame=(256, 455), offsets=[(16, 116)], size=224
    )
    assert number.tolist() == [0]
    assert moved.tolist() == [[0, 0, 0, 112]]
