"""A contact sheet shows each strip in order, under its title, at the place that follows from the rows above."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from hiera_video.viz.sheet import GAP, HEIGHT, MARGIN, TEXT, WIDEST, Strip, contact_sheet


def opened(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def plain(*values: int, height: int = 48, width: int = 48) -> np.ndarray:
    return np.stack([np.full((height, width, 3), value, np.uint8) for value in values])


def test_strips_keep_their_order_and_pixels() -> None:
    sheet = opened(
        contact_sheet(
            [
                Strip(title="the example", frames=plain(10, 20), heading=True),
                Strip(title="1  0.9 – found", frames=plain(30, 40)),
                Strip(title="2  gone", frames=None),
            ]
        )
    )
    rows = [MARGIN + TEXT, MARGIN + TEXT + HEIGHT + MARGIN + TEXT]
    assert [int(sheet[rows[0] + 50, MARGIN + x, 0]) for x in (0, HEIGHT - 1, HEIGHT + GAP)] == [
        10,
        10,
        20,
    ]
    indent = 3 * MARGIN
    assert [int(sheet[rows[1] + 50, indent + x, 0]) for x in (0, HEIGHT - 1, HEIGHT + GAP)] == [
        30,
        30,
        40,
    ]
    assert sheet.shape == (
        MARGIN + 3 * (TEXT + MARGIN) + 2 * HEIGHT + HEIGHT // 2,
        indent + 2 * HEIGHT + GAP + MARGIN,
        3,
    )
    assert sheet[MARGIN : MARGIN + TEXT].min() < 100  # the title is there
    assert tuple(sheet[-MARGIN - 5, indent + 5]) == (225, 225, 225)


def test_wide_frames_are_made_to_fit() -> None:
    sheet = opened(
        contact_sheet(
            [Strip(title="wide", frames=plain(*[90] * 6, height=90, width=320), heading=True)]
        )
    )
    assert WIDEST - 12 <= sheet.shape[1] - 2 * MARGIN <= WIDEST


def test_no_strips_are_an_empty_sheet() -> None:
    assert opened(contact_sheet([])).shape == (MARGIN, 2 * MARGIN, 3)
