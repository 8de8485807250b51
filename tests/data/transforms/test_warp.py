"""The warp equals torch's bicubic `grid_sample` to rounding."""

from __future__ import annotations

import math

import pytest
import torch

from hiera_video.data.transforms.warp import Matrix, warp

COS, SIN = math.cos(0.3), math.sin(0.3)
MATRICES = {
    "nothing": (1, 0, 0, 0, 1, 0),
    "rotate": (COS, SIN, 3.7, -SIN, COS, -2.1),
    "shear x": (1, 0.2, 0, 0, 1, 0),
    "shear y": (1, 0, 0, -0.3, 1, 0),
    "whole pixels": (1, 0, 5, 0, 1, 0),
    "part of a pixel": (1, 0, 0, 0, 1, -7.25),
    "all outside": (1, 0, 500, 0, 1, 0),
}


def by_grid_sample(clip: torch.Tensor, matrix: Matrix, fill: int) -> torch.Tensor:
    height, width = clip.shape[-2:]
    a, b, c, d, e, f = matrix
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    x, y = a * x + b * y + c, d * x + e * y + f
    grid = torch.stack([x * 2 / width - 1, y * 2 / height - 1], dim=-1).expand(
        len(clip), -1, -1, -1
    )
    sampled = torch.nn.functional.grid_sample(
        clip.double(), grid.double(), mode="bicubic", padding_mode="border", align_corners=False
    )
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return torch.where(inside, sampled, float(fill)).clamp(0, 255)


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("size", [(33, 50), (120, 90), (2, 3)])
def test_a_warp_equals_grid_sample_to_rounding(name: str, size: tuple[int, int]) -> None:
    clip = torch.randint(
        0, 256, (3, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    clip = clip.permute(0, 3, 1, 2)
    expected = by_grid_sample(clip, MATRICES[name], fill=77)
    warped = warp(clip, MATRICES[name], fill=77)
    assert warped.dtype == torch.uint8 and warped.shape == clip.shape
    # half a grey level, and places in single precision
    assert (warped - expected).abs().max() <= 0.5 + 1e-2
    # the memory layout does not matter
    assert torch.equal(warp(clip.contiguous(), MATRICES[name], fill=77), warped)


def test_shifts_as_literals() -> None:
    row = torch.arange(0, 80, 10, dtype=torch.uint8).expand(1, 3, 2, 8)
    shifted = warp(row, (1, 0, 2, 0, 1, 0), fill=128)[0, 0, 0]
    assert shifted.tolist() == [*range(20, 80, 10), 128, 128]
    half = warp(row, (1, 0, 0.5, 0, 1, 0), fill=128)[0, 1, 1].tolist()
    assert half[1:6] == [15, 25, 35, 45, 55] and half[-1] == 128
    assert torch.equal(warp(row, (1, 0, 0, 0, 1, 0), fill=128), row)
