"""Time the finishing of crops on a GPU (`augment.device=model`) and what feeds it.

python benchmarks/gpu_finish.py --out results/gpu_finish.json
"""

from __future__ import annotations

import argparse
import math
import random
import time
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_timing import Setup, time_candidates
from record import record
from torch import Tensor

from hiera_video.data.config import AugmentConfig
from hiera_video.data.transforms.clip_sample import PendingCrop, collate
from hiera_video.data.transforms.on_device import (
    PendingBatch,
    finish_batch,
    finish_by_interpolation,
)
from hiera_video.data.transforms.resize import bilinear_taps
from hiera_video.data.transforms.train_eval import TrainTransform
from hiera_video.runtime.device_feed import DeviceFeed


def crops(count: int, frames: int, size: int) -> tuple[Tensor, tuple[PendingCrop, ...]]:
    """Return random crops of noise, as workers send them."""
    augment = AugmentConfig(device="model", scale=(0.08, 1.0))
    transform = TrainTransform(augment, size)
    noise = np.random.default_rng(0).integers(0, 255, (frames, 240, 320, 3), dtype=np.uint8)
    return collate([transform(noise, random.Random(number)) for number in range(count)])


def gather(pixels: Tensor, pending: PendingBatch, at_once: int = 8) -> Tensor:
    """Resize eight clips at a time by gathering the four pixels around each output pixel."""
    colours, crops, device = pixels.view(-1, 3), pending.crops, pixels.device
    size, frames = crops[0].size, crops[0].shape[0]
    rows, row_weights = taps([crop.shape[1] for crop in crops], size)
    columns, column_weights = taps([crop.shape[2] for crop in crops], size)
    for number, crop in enumerate(crops):
        if crop.flip:
            columns[:, number] = columns[:, number].flip(-1)
            column_weights[number] = column_weights[number].flip(-1)
    counts = [math.prod(crop.shape) for crop in crops]
    starts = torch.tensor([sum(counts[:number]) for number in range(len(crops))])[:, None]
    frame_pixels = torch.tensor([crop.shape[1] * crop.shape[2] for crop in crops])[:, None]
    starts = (starts + torch.arange(frames) * frame_pixels)[:, :, None].to(device)
    widths = torch.tensor([crop.shape[2] for crop in crops])[:, None].to(device)
    rows, columns = rows.to(device), columns[:, :, None, None].to(device)
    across = column_weights[:, None, None, :, None].to(device)
    down = row_weights[:, None, :, None, None].to(device)
    mean, std = pending.colours * 255
    clips = torch.empty(len(crops), 3, frames, size, size, device=device)
    for first in range(0, len(crops), at_once):
        part = slice(first, first + at_once)
        lines = []
        for line in rows[:, part]:
            place = (starts[part] + (line * widths[part])[:, None])[..., None]
            left, right = (colours[place + column].float() for column in columns[:, part])
            lines.append(left * (1 - across[part]) + right * across[part])
        resized = lines[0] * (1 - down[part]) + lines[1] * down[part]
        clips[part] = ((resized - mean) / std).permute(0, 4, 1, 2, 3)
    return clips


def taps(lengths: list[int], size: int) -> tuple[Tensor, Tensor]:
    """Return the two source pixels of each output pixel [2, B, S], and the second's weight."""
    places, weights = zip(*(bilinear_taps(length, size) for length in lengths))
    return torch.stack(places).permute(2, 0, 1).clone(), torch.stack(weights)[..., 1].clone()


def feed(parts: list[Tensor], device: torch.device, count: int) -> dict[str, float]:
    """Return the seconds a batch of a feed whose consumer queues a little work."""
    steps: Iterator[list[int]] = iter([[number] for number in range(count)])
    steps_feed = DeviceFeed(steps, device, lambda _: parts)
    sums, took = [], []
    for ((_, transfer),) in steps_feed:
        began = time.perf_counter()
        moved = transfer()
        took.append(time.perf_counter() - began)
        sums.append(moved[0].view(-1)[:1000].sum())
    began = time.perf_counter()
    torch.stack(sums).tolist()
    steps_feed.close()
    took = sorted(took[3:])
    return {"median": took[len(took) // 2], "mean": sum(took) / len(took)}


def measure(setup: Setup, count: int, frames: int, size: int) -> dict[str, Any]:
    """Return the seconds of each candidate for a batch of `count` clips."""
    pixels, pending_crops = crops(count, frames, size)
    pending = PendingBatch.of(pending_crops)
    device = setup.device
    moved = pending.on_device([tensor.to(device) for tensor in pending.tensors()])
    on_gpu = pixels.to(device)
    candidates = {
        "interpolate": partial(finish_by_interpolation, on_gpu, moved),
        "gather": partial(gather, on_gpu, moved),
    }
    result: dict[str, Any] = {"clips": count, "bytes": pixels.numel()}
    expected = finish_batch(pixels, pending)
    differences, errors = {}, {}
    for name, run in list(candidates.items()):
        try:
            began = time.perf_counter()
            differences[name] = (run().cpu() - expected).abs().max().item()
            run()
            result[f"first_{name}"] = time.perf_counter() - began
        except Exception:
            errors[name] = traceback.format_exc()[-800:]
            del candidates[name]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        result["host"] = {}
        for name, run in candidates.items():
            torch.cuda.synchronize()
            began = time.perf_counter()
            run()
            result["host"][name] = time.perf_counter() - began
            torch.cuda.synchronize()
    result |= {"seconds": time_candidates(candidates, setup), "difference": differences}
    result["errors"] = errors
    floats = torch.randn(count, 3, frames, size, size)
    result["feed_floats"] = feed([floats], device, 20)
    result["feed_bytes"] = feed([pixels, *pending.tensors()], device, 20)
    return result


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--micro", action="store_true", help="small clips, to try the script out")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    setup = Setup(device=device, micro=options.micro)
    shape = (4, 2, 32) if options.micro else (32, 16, 224)
    result = measure(setup, *shape)
    if device.type == "cuda":
        result["device"] = torch.cuda.get_device_name()
    for name, times in result["seconds"].items():
        print(f"{name}: {times['median'] * 1e3:.2f} ms, {result['difference'][name]:.1e} off")
    print({key: value for key, value in result.items() if key not in ("seconds", "difference")})
    record("gpu_finish", result, options.out)


if __name__ == "__main__":
    main()
