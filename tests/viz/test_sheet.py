"""Contact sheets show each strip in order, under its title, at the expected position."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from hiera_video.viz.sheet import (
    GAP,
    HEIGHT,
    MARGIN,
    MAX_WIDTH,
    PLACEHOLDER,
    TEXT,
    Strip,
    contact_sheet,
)


def decoded(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def plain(*values: int, height: int = 48, width: int = 48) -> np.ndarray:
    return np.stack([np.full((height, width, 3), value, np.uint8) for value in values])


def test_strips_keep_their_order_and_pixels() -> None:
    sheet = decoded(
        contact_sheet(
            [
                Strip(title="the example", frames=plain(10, 20), heading=True),
                Strip(title="1  0.9 – found", frames=plain(30, 40)),
                Strip(title="2  gone", frames=None),
            ]
        )
    )
    first, second = MARGIN + TEXT, MARGIN + TEXT + HEIGHT + MARGIN + TEXT
    columns = np.array([0, HEIGHT - 1, HEIGHT + GAP])
    assert sheet[first + 50, MARGIN + columns, 0].tolist() == [10, 10, 20]
    assert sheet[second + 50, MARGIN + columns, 0].tolist() == [30, 30, 40]
    assert sheet.shape == (
        MARGIN + 3 * (TEXT + MARGIN) + 2 * HEIGHT + HEIGHT // 2,
        MARGIN + 2 * HEIGHT + GAP + MARGIN,
        3,
    )
    assert sheet[MARGIN : MARGIN + TEXT].min() < 100  # the title
    assert tuple(sheet[-MARGIN - 5, MARGIN + 5]) == PLACEHOLDER


def test_wide_strips_are_scaled_down() -> None:
    frames = plain(*[90] * 6, height=90, width=320)
    sheet = decoded(contact_sheet([Strip(title="wide", frames=frames, heading=True)]))
    assert MAX_WIDTH - 12 <= sheet.shape[1] - 2 * MARGIN <= MAX_WIDTH


def test_no_strips_are_an_empty_sheet() -> None:
    assert decoded(contact_sheet([])).shape == (MARGIN, 2 * MARGIN, 3)


@pytest.mark.parametrize("title", ["a\nb.mp4", "\x1b[31mred", "caf\udce9.mp4"])
def test_titles_of_odd_names(title: str) -> None:
    """I 4.3: line breaks and bytes that are not UTF-8."""
    one = decoded(contact_sheet([Strip(title="a", frames=None)]))
    assert decoded(contact_sheet([Strip(title=title, frames=None)])).shape == one.shape
