"""Overlays colour the right places by sign and size."""

from __future__ import annotations

import numpy as np
import torch

from hiera_video.viz.overlays import as_pictures, draw_grid, hide_cells, overlay, tint


def test_clips_become_the_pixels_that_were_normalised() -> None:
    pixels = torch.arange(3 * 2 * 4 * 4).view(3, 2, 4, 4).float()
    frames = as_pictures((pixels / 255 - 0.45) / 0.225, mean=[0.45] * 3, std=[0.225] * 3)
    assert frames.shape == (2, 4, 4, 3)
    assert frames[1, 2, 3].tolist() == [16 + 11, 32 + 16 + 11, 64 + 16 + 11]


def test_values_above_zero_are_red_and_below_blue() -> None:
    frames = np.full((4, 8, 8, 3), 100, np.uint8)
    maps = np.zeros((2, 2, 2), np.float32)
    maps[0, 0, 0], maps[1, 1, 1] = 2.0, -1.0
    drawn = overlay(frames, maps)
    # opacity 0.75: 100 + 0.75 * (222 - 100), …
    assert drawn[0, 0, 0].tolist() == drawn[1, 0, 0].tolist() == [192, 70, 55]
    # half as large: opacity 0.375
    assert drawn[2, 7, 7].tolist() == drawn[3, 7, 7].tolist() == [79, 102, 145]
    assert drawn[0, 7, 7].tolist() == drawn[2, 0, 0].tolist() == [100, 100, 100]


def test_the_limit_compares_clips_with_each_other() -> None:
    frames = np.full((2, 4, 4, 3), 100, np.uint8)
    maps = np.full((1, 1, 1), 1.0, np.float32)
    assert overlay(frames, maps, limit=2.0)[0, 0, 0].tolist() == [146, 85, 78]
    assert overlay(frames, maps, limit=0.5)[0, 0, 0].tolist() == [192, 70, 55]


def test_an_empty_map_leaves_the_frames() -> None:
    frames = np.full((2, 4, 4, 3), 100, np.uint8)
    assert np.array_equal(overlay(frames, np.zeros((1, 2, 2), np.float32)), frames)


def test_the_grid_lies_on_the_borders_of_cells() -> None:
    drawn = draw_grid(np.zeros((2, 8, 12, 3), np.uint8), (4, 6))
    assert (drawn[:, 4] == 255).all() and (drawn[:, :, 6] == 255).all()
    assert int((drawn == 255).sum()) == 2 * 3 * (12 + 8 - 1)


def test_hidden_cells_are_grey() -> None:
    shown = np.array([[[True, False]], [[False, True]]])
    hidden = hide_cells(np.full((4, 2, 4, 3), 7, np.uint8), shown)
    assert hidden[:, 1, :, 0].tolist() == [[7, 7, 128, 128]] * 2 + [[128, 128, 7, 7]] * 2


def test_colours_fill_the_cells_of_their_places() -> None:
    colours = np.array([[[[0, 0.5, 1]]], [[[1, 0, 0]]]], np.float32)
    tinted = tint(np.zeros((4, 2, 2, 3), np.uint8), colours)
    assert tinted[1, 1, 0].tolist() == [0, 128, 255] and tinted[2, 0, 1].tolist() == [255, 0, 0]
