"""Boxes are drawn at their place, with captions beside them and inside the frame."""

from __future__ import annotations

import numpy as np
import pytest

from hiera_video.viz.boxes import BLUE, GREEN, RED, DrawnBox, draw_boxes


def drawn(frame: np.ndarray, *boxes: DrawnBox) -> np.ndarray:
    return draw_boxes(frame, boxes)


def places(picture: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Return the first and last row and the first and last column with a colour."""
    rows, columns = np.nonzero((picture == colour).all(axis=2))
    return rows.min(), rows.max(), columns.min(), columns.max()


def test_a_box_is_drawn_at_its_edges() -> None:
    frame = np.zeros((240, 480, 3), np.uint8)
    box = DrawnBox(edges=(0.25, 0.25, 0.5, 0.75), captions=(), colour=RED)
    picture = drawn(frame, box)
    assert picture.shape == (480, 960, 3)
    assert places(picture, RED) == (120, 360, 240, 480)
    assert (picture[200, 300] == 0).all()  # only the outline


def test_a_small_frame_is_enlarged_with_its_pixels_kept() -> None:
    frame = np.arange(80 * 96 * 3, dtype=np.uint32).reshape(80, 96, 3).astype(np.uint8)
    assert np.array_equal(drawn(frame), frame.repeat(6, axis=0).repeat(6, axis=1))


def test_odd_sides_become_even() -> None:
    frame = np.random.default_rng(0).integers(0, 255, (501, 481, 3), np.uint8)
    assert np.array_equal(drawn(frame), frame[:500, :480])


@pytest.mark.parametrize(
    ("edges", "rows"),
    [((0.2, 0.5, 0.4, 0.8), (240 - 30, 239)), ((0.2, 0.05, 0.4, 0.5), (240, 269))],
)
def test_captions_stand_above_the_box_or_below_it(
    edges: tuple[float, float, float, float], rows: tuple[int, int]
) -> None:
    frame = np.zeros((240, 240, 3), np.uint8)
    box = DrawnBox(edges=edges, captions=("up 93 %", "down 4 %"), colour=GREEN)
    plain = drawn(frame, DrawnBox(edges=edges, captions=(), colour=GREEN))
    text = (drawn(frame, box) != plain).any(axis=2)
    found = np.flatnonzero(text.any(axis=1))
    assert rows[0] <= found.min() + 1 and found.max() <= rows[1] + 1
    assert text.sum() > 1000


def test_a_caption_stays_inside_the_frame() -> None:
    frame = np.zeros((240, 240, 3), np.uint8)
    long = 2 * "a very long name of a class that no frame could hold in one line \x1b[31m"
    picture = drawn(frame, DrawnBox(edges=(0.9, 0.5, 1, 1), captions=(long,), colour=BLUE))
    top, bottom, left, right = places(picture, BLUE)
    assert 0 <= left <= 24 and (top, bottom, right) == (225, 479, 479)
    short = drawn(frame, DrawnBox(edges=(0.95, 0.5, 1, 1), captions=("run",), colour=BLUE))
    assert 380 < places(short, BLUE)[2] <= 456 and places(short, BLUE)[3] == 479
