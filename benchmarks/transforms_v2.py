"""Our transform kernels against torchvision.transforms.v2: CPU time on one thread.

    python benchmarks/transforms_v2.py                     # one or two minutes
    python benchmarks/transforms_v2.py --rounds 5 --out /tmp/x.json

A clip is 16 uint8 frames of 340×256, cropped to 224. Each kernel and the library's alternate in one
process; a ratio is the library's CPU time over ours in the same round, given as the median of the
rounds with its range. CPU time and not wall time, so that other processes on the machine matter
little. A kernel of ours is kept at 1.15 × or more, or where the library gives another result.
Writes `results/transforms_v2.json`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from record import record
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as v2

from hiera_video.data.config import AugmentConfig
from hiera_video.data.transforms import augment, train_eval
from hiera_video.data.transforms.clip_sample import ClipSample, PendingCrop
from hiera_video.data.transforms.train_eval import EvalTransform, TrainTransform
from hiera_video.data.transforms.warp import Matrix, warp

FRAMES, HEIGHT, WIDTH, SIZE = 16, 256, 340, 224
MEAN, STD = (0.45,) * 3, (0.225,) * 3
ANGLE = 21.0
"""Degrees: RandAugment's rotation at magnitude 7."""
Kernel = Callable[[], Tensor]


def main() -> int:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=5, help="calls of each kernel in a round")
    parser.add_argument("--out", type=Path, help="file to write instead of results/…")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = {}
    for name, (ours, theirs, note) in kernels().items():
        rows[name] = {
            "library": note,
            **compare(ours, theirs, arguments.rounds, arguments.repeats),
        }
        print(f"{name}: {rows[name]}")
    result = {
        "command": " ".join(["python", *sys.argv]),
        "clock": "CPU time of the process, one thread",
        "load_average": os.getloadavg()[0],
        "rounds": arguments.rounds,
        "repeats": arguments.repeats,
        "kernels": rows,
    }
    print(record("transforms_v2", result, arguments.out))
    return 0


def compare(ours: Kernel, theirs: Kernel, rounds: int, repeats: int) -> dict[str, Any]:
    """Return the ratio of CPU times and the largest difference of the results."""
    difference = (ours().float() - theirs().float()).abs().max().item()  # also imports, allocates
    milliseconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for kernel, times in zip((ours, theirs), milliseconds):
            began = time.process_time()
            for _ in range(repeats):
                kernel()
            times.append(1000 * (time.process_time() - began) / repeats)
    ratios = [b / a for a, b in zip(*milliseconds)]
    return {
        "ratio": round(statistics.median(ratios), 2),
        "low": round(min(ratios), 2),
        "high": round(max(ratios), 2),
        "milliseconds": round(statistics.median(milliseconds[0]), 2),
        "milliseconds_of_library": round(statistics.median(milliseconds[1]), 2),
        "largest_difference": float(f"{difference:.2g}"),
    }


def kernels() -> dict[str, tuple[Kernel, Kernel, str]]:
    """Return our kernel, the library's, and what the library's is, by name."""
    numpy_frames = np.random.default_rng(0).integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    clip = train_eval.as_clip(numpy_frames)
    crop = clip[..., 20:200, 30:250]
    rotation = rotation_matrix(ANGLE)
    shears: list[Matrix] = [(1, 0.21, 0, 0, 1, 0), (1, 0, 0, 0.21, 1, 0)]
    shifts: list[Matrix] = [(1, 0, 107.1, 0, 1, 0), (1, 0, 0, 0, 1, 80.64)]
    warps = [rotation, *shears, *shifts]
    three, one = (EvalTransform(SIZE, crops, MEAN, STD) for crops in (3, 1))
    train = TrainTransform(AugmentConfig(mean=MEAN, std=STD), SIZE)
    return {
        "rotate, bicubic": (
            lambda: warp(clip, rotation, fill=128),
            lambda: by_grid_sample(clip, rotation),
            "grid_sample, bicubic, on float32 planes (v2.functional.affine has no bicubic here)",
        ),
        "rotate, the library bilinear": (
            lambda: warp(clip, rotation, fill=128),
            lambda: v2.rotate(clip, ANGLE, InterpolationMode.BILINEAR, fill=[128.0]),
            "v2.functional.rotate, bilinear: another picture than timm's recipe",
        ),
        "shear, bicubic": (
            lambda: warp(clip, shears[0], fill=128),
            lambda: by_grid_sample(clip, shears[0]),
            "grid_sample, bicubic, on float32 planes",
        ),
        "translate, bicubic": (
            lambda: warp(clip, shifts[0], fill=128),
            lambda: by_grid_sample(clip, shifts[0]),
            "grid_sample, bicubic, on float32 planes",
        ),
        "the five warps of RandAugment": (
            lambda: torch.stack([warp(clip, matrix, fill=128) for matrix in warps]),
            lambda: torch.stack([by_grid_sample(clip, matrix) for matrix in warps]),
            "grid_sample, bicubic, on float32 planes",
        ),
        "training crop": (
            lambda: finish(crop, train),
            lambda: training_crop_v2(crop),
            "v2.functional.resize without antialias on float32, normalize, flip",
        ),
        "training crop, the library on uint8": (
            lambda: finish(crop, train),
            lambda: training_crop_v2(crop, as_uint8=True),
            "v2.functional.resize on uint8: rounds to grey levels, not the protocol",
        ),
        "three test crops": (
            lambda: three(numpy_frames),
            lambda: test_crops_v2(numpy_frames, crops=3),
            "v2.functional.resize without antialias on float32, normalize, crop",
        ),
        "one test crop": (
            lambda: one(numpy_frames),
            lambda: test_crops_v2(numpy_frames, crops=1),
            "the same; 256 rows are resized to 256",
        ),
        "reused buffer of five clips": (
            lambda: views_of(EVAL_REUSED, numpy_frames),
            lambda: views_of(EVAL_ALLOCATING, numpy_frames),
            "the same transform with numpy.empty for each video (torch.empty is slower)",
        ),
        "sharpness as sums of rows and columns (removed)": (
            lambda: torch.stack([sharpness_by_sums(frame, 1.63) for frame in clip]),
            lambda: v2.adjust_sharpness(clip, 1.63),
            "v2.functional.adjust_sharpness of the whole clip, which replaces it",
        ),
        "solarize": (
            lambda: augment.apply_operation(clip, "SolarizeIncreasing", level=0.7, sign=1.0),
            lambda: v2.solarize(clip, 256 - 179),
            "v2.functional.solarize",
        ),
        "brightness frame by frame": (
            lambda: augment.apply_operation(clip, "BrightnessIncreasing", level=0.7, sign=1.0),
            lambda: v2.adjust_brightness(clip, 1.63),
            "v2.functional.adjust_brightness of the whole clip",
        ),
        "contrast frame by frame": (
            lambda: augment.apply_operation(clip, "ContrastIncreasing", level=0.7, sign=1.0),
            lambda: v2.adjust_contrast(clip, 1.63),
            "v2.functional.adjust_contrast of the whole clip",
        ),
        "saturation frame by frame": (
            lambda: augment.apply_operation(clip, "ColorIncreasing", level=0.7, sign=1.0),
            lambda: v2.adjust_saturation(clip, 1.63),
            "v2.functional.adjust_saturation of the whole clip",
        ),
        "autocontrast frame by frame": (
            lambda: augment.apply_operation(clip, "AutoContrast", level=0.7, sign=1.0),
            lambda: v2.autocontrast(clip),
            "v2.functional.autocontrast of the whole clip",
        ),
    }


def rotation_matrix(degrees: float) -> Matrix:
    """Return the map of output to source pixels of a rotation about the centre."""
    angle = torch.deg2rad(torch.tensor(-degrees, dtype=torch.float64))
    cos, sin = float(torch.cos(angle)), float(torch.sin(angle))
    shift_x = WIDTH / 2 - cos * WIDTH / 2 - sin * HEIGHT / 2
    shift_y = HEIGHT / 2 + sin * WIDTH / 2 - cos * HEIGHT / 2
    return cos, sin, shift_x, -sin, cos, shift_y


def by_grid_sample(clip: Tensor, matrix: Matrix) -> Tensor:
    """Warp as torchvision would if it had bicubic: float32, grid_sample, fill, round."""
    a, b, c, d, e, f = matrix
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    x, y = a * x + b * y + c, d * x + e * y + f
    grid = torch.stack([x * 2 / WIDTH - 1, y * 2 / HEIGHT - 1], dim=-1)
    sampled = F.grid_sample(
        clip.float(),
        grid.expand(len(clip), -1, -1, -1),
        mode="bicubic",
        padding_mode="border",
        align_corners=False,
    )
    inside = (x >= 0) & (x < WIDTH) & (y >= 0) & (y < HEIGHT)
    return torch.where(inside, sampled.round_().clamp_(0, 255), 128.0).to(torch.uint8)


def finish(crop: Tensor, transform: TrainTransform) -> Tensor:
    """Finish a flipped training crop, uint8 [T, 3, h, w], in this process."""
    pixels = rearrange(crop, "t c h w -> t h w c")
    frames, height, width, _ = pixels.shape
    pending = PendingCrop(
        shape=(frames, height, width),
        flip=True,
        erasure=None,
        size=transform.size,
        mean=MEAN,
        std=STD,
    )
    return ClipSample(pixels=pixels, pending=pending).finish().pixels


def training_crop_v2(crop: Tensor, *, as_uint8: bool = False) -> Tensor:
    """Finish a flipped training crop with torchvision."""
    pixels = crop if as_uint8 else v2.to_dtype(crop, torch.float32, scale=True)
    resized = v2.resize(pixels, [SIZE, SIZE], InterpolationMode.BILINEAR, antialias=False)
    resized = v2.horizontal_flip(v2.to_dtype(resized, torch.float32, scale=True))
    return rearrange(v2.normalize(resized, MEAN, STD), "t c h w -> c t h w").contiguous()


def test_crops_v2(frames: np.ndarray, *, crops: int) -> Tensor:
    """Return the test crops of a clip with torchvision, in the protocol's order."""
    clip = v2.to_dtype(train_eval.as_clip(frames), torch.float32, scale=True)
    short_side = SIZE if crops > 1 else SIZE * 8 // 7
    size = train_eval.resized_size(HEIGHT, WIDTH, short_side=short_side)
    resized = v2.resize(clip, list(size), InterpolationMode.BILINEAR, antialias=False)
    resized = rearrange(v2.normalize(resized, MEAN, STD), "t c h w -> c t h w")
    offsets = train_eval.crop_offsets(*size, size=SIZE, crops=crops)
    return torch.stack([v2.crop(resized, top, left, SIZE, SIZE) for top, left in offsets])


def sharpness_by_sums(frame: Tensor, factor: float) -> Tensor:
    """Sharpen a frame, with torchvision's 3×3 mean as sums of rows and of columns."""
    rows = rearrange(frame, "c h w -> h (w c)").float()
    middle = rows[1:-1, 3:-3]
    lines = rows[:-2] + rows[1:-1] + rows[2:]
    mean = (lines[:, :-6] + lines[:, 3:-3] + lines[:, 6:]).add_(middle, alpha=4)
    middle.add_(mean.mul_(1 / 13).round_().sub_(middle), alpha=1 - factor)
    return rearrange(rows.clamp_(0, 255).to(torch.uint8), "h (w c) -> c h w", c=3)


class _Allocating:
    """Allocates where `ReusedBuffer` reuses."""

    def take(self, shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(np.empty(shape, np.float32))


EVAL_REUSED, EVAL_ALLOCATING = (EvalTransform(SIZE, 3, MEAN, STD) for _ in range(2))
EVAL_ALLOCATING._buffer = _Allocating()  # type: ignore[assignment]


def views_of(transform: EvalTransform, frames: np.ndarray) -> Tensor:
    """Return five clips of a video, which are dropped at once, as by a worker."""
    clips = transform.views_of(frames, [range(FRAMES)] * 5).clips
    return clips[0, 0, 0, 0, :1].clone()


if __name__ == "__main__":
    sys.exit(main())
