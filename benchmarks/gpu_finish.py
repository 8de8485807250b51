"""Time the finishing of crops on a GPU (`augment.device=model`) and what feeds it.

python benchmarks/gpu_finish.py --out results/gpu_finish.json
"""

from __future__ import annotations

import argparse
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
from torch.nn import functional as F

from hiera_video.data.config import AugmentConfig
from hiera_video.data.transforms import on_device
from hiera_video.data.transforms.clip_sample import PendingCrop, collate
from hiera_video.data.transforms.on_device import PendingBatch, finish_batch
from hiera_video.data.transforms.train_eval import TrainTransform
from hiera_video.runtime.device_feed import DeviceFeed


def crops(count: int, frames: int, size: int) -> tuple[Tensor, tuple[PendingCrop, ...]]:
    """Return random crops of noise, as workers send them."""
    augment = AugmentConfig(device="model", erase=0.25, scale=(0.08, 1.0))
    transform = TrainTransform(augment, size)
    noise = np.random.default_rng(0).integers(0, 255, (frames, 240, 320, 3), dtype=np.uint8)
    return collate([transform(noise, random.Random(number)) for number in range(count)])


def erase(clips: Tensor, pending: PendingBatch) -> Tensor:
    for (clip, top, left), noise in zip(pending.boxes, pending.noise):
        height, width = noise.shape[-2:]
        box = clips[clip, :, :, top : top + height, left : left + width]
        box.copy_(noise.transpose(0, 1))
    return clips


def separable(pixels: Tensor, pending: PendingBatch, crops: tuple[PendingCrop, ...]) -> Tensor:
    """Resize one clip at a time, columns first and then rows."""
    size = crops[0].size
    clips = torch.empty(len(crops), 3, crops[0].shape[0], size, size, device=pixels.device)
    mean, std = (values[:, None, None, None] * 255 for values in pending.colours)
    start = 0
    for number, (clip, crop) in enumerate(zip(clips, crops)):
        frames, height, width = crop.shape
        count = 3 * frames * height * width
        planes = pixels[start : start + count].view((*crop.shape, 3)).permute(3, 0, 1, 2)
        planes = planes.contiguous()
        start += count
        above, below, left, right = pending.lines[:, number]
        down, across = pending.weights[0, number][:, None], pending.weights[1, number]
        wide = planes.index_select(3, left) * (1 - across) + planes.index_select(3, right) * across
        tall = wide.index_select(2, above) * (1 - down) + wide.index_select(2, below) * down
        torch.sub(tall, mean, out=clip).div_(std)
    return erase(clips, pending)


def interpolated(pixels: Tensor, pending: PendingBatch, crops: tuple[PendingCrop, ...]) -> Tensor:
    """Resize one clip at a time by torch's `interpolate`."""
    size = crops[0].size
    clips = torch.empty(len(crops), 3, crops[0].shape[0], size, size, device=pixels.device)
    mean, std = (values[:, None, None, None] * 255 for values in pending.colours)
    start = 0
    for clip, crop in zip(clips, crops):
        count = 3 * crop.shape[0] * crop.shape[1] * crop.shape[2]
        planes = pixels[start : start + count].view((*crop.shape, 3)).permute(3, 0, 1, 2)
        start += count
        planes = planes.to(torch.float32, memory_format=torch.contiguous_format)
        resized = F.interpolate(planes, (size, size), mode="bilinear", align_corners=False)
        torch.sub(resized.flip(-1) if crop.flip else resized, mean, out=clip).div_(std)
    return erase(clips, pending)


def all_at_once(pixels: Tensor, pending: PendingBatch) -> Tensor:
    """Resize as `finish_batch` does, compiled: one kernel, whose sizes do not matter."""
    clips = _resize_compiled(pixels.view(-1, 3), pending.lines, pending.weights, pending.frames,
                             pending.widths, pending.colours)  # fmt: skip
    return erase(clips, pending)


@torch.compile(dynamic=True)
def _resize_compiled(
    colours: Tensor, lines: Tensor, weights: Tensor, frames: Tensor, widths: Tensor, norm: Tensor
) -> Tensor:
    pending = PendingBatch(
        lines=lines, weights=weights, frames=frames, widths=widths, colours=norm, boxes=(), noise=()
    )
    resized = on_device._resize(colours, pending, slice(0, len(widths)))
    return resized.permute(0, 4, 1, 2, 3).contiguous()


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
        "gather": partial(finish_batch, on_gpu, moved),
        "separable": partial(separable, on_gpu, moved, pending_crops),
        "interpolate": partial(interpolated, on_gpu, moved, pending_crops),
        "compiled": partial(all_at_once, on_gpu, moved),
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
