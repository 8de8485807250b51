"""Clips finished on the model's device equal those that workers finish."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hiera_video.data.config import AugmentConfig
from hiera_video.data.dataset import TrainClips
from hiera_video.data.loading.balanced import classes_to_balance
from hiera_video.data.loading.batch_plan import BatchPlan
from hiera_video.data.loading.loader import ClipBatch, train_loader
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.clip_sample import collate
from hiera_video.data.transforms.flip_labels import LabelFlip
from hiera_video.data.transforms.on_device import (
    PendingBatch,
    finish_batch,
    finish_by_interpolation,
    place_augmentation,
)
from hiera_video.data.transforms.train_eval import TrainTransform

CPU = torch.device("cpu")
EVERYTHING = AugmentConfig(
    rand_augment=7, color_jitter=0.4, erase=0.5, mean=(0.45, 0.4, 0.35), std=(0.2, 0.225, 0.25)
)
SIZES = [
    (64, 85),
    (85, 64),
    (33, 90),
    (56, 56),
    (30, 24),
    (200, 260),
    (57, 301),
    (64, 64),
    (7, 9),
    (120, 160),
]


def noise(index: int, height: int, width: int) -> np.ndarray:
    """Return frames of black and white pixels, where a place that is rounded differently shows."""
    return np.random.default_rng(index).integers(0, 2, (3, height, width, 3)).astype(np.uint8) * 255


def both(
    size: int, device: torch.device, finish: Callable[..., torch.Tensor] = finish_batch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return clips of all `SIZES`, finished by workers and on `device`."""
    on_worker = TrainTransform(EVERYTHING, size)
    on_model = TrainTransform(replace(EVERYTHING, device="model"), size)
    videos = [noise(index, *SIZES[index % len(SIZES)]) for index in range(20)]
    crops = [on_model(frames, random.Random(index)) for index, frames in enumerate(videos)]
    finished = [on_worker(frames, random.Random(index)) for index, frames in enumerate(videos)]
    for crop, clip in zip(crops, finished):
        assert torch.equal(crop.finish().pixels, clip.pixels) and clip.finish() is clip
    pixels, pending = collate(crops)
    assert pixels.dtype == torch.uint8 and pixels.ndim == 1
    assert 0 < sum(crop.flip for crop in pending) < 20
    assert 0 < sum(crop.erasure is not None for crop in pending) < 20
    expected, nothing = collate(finished)
    assert nothing == ()
    batch = PendingBatch.of(pending)
    moved = batch.on_device([tensor.to(device) for tensor in batch.tensors()])
    return expected, finish(pixels.to(device), moved)


# torch has two kernels, for small and for large pictures
@pytest.mark.parametrize("size", [56, 160])
def test_clips_equal_those_of_workers(size: int) -> None:
    expected, finished = both(size, CPU)
    assert finished.shape == (20, 3, 3, size, size) and finished.is_contiguous()
    torch.testing.assert_close(finished, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [56, 160])
def test_the_code_for_gpus_gives_the_same_clips(size: int) -> None:
    """Within 1e-4 on a CPU, whose `interpolate` rounds the places of pixels twice."""
    expected, finished = both(size, CPU, finish=finish_by_interpolation)
    assert finished.is_contiguous()
    torch.testing.assert_close(finished, expected, atol=1e-4, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_clips_on_a_gpu_equal_those_of_workers() -> None:
    expected, finished = both(224, torch.device("cuda"))
    assert finished.device.type == "cuda"
    torch.testing.assert_close(finished.cpu(), expected, atol=1e-5, rtol=0)


# -- through the loader ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifest(shared_videos: Any) -> Manifest:
    for i in range(8):
        shared_videos.write(f"finishing/{i}.mp4", 12, width=(64, 80)[i % 2])
    listing = shared_videos.folder / "finishing/list.csv"
    listing.write_text("".join(f"{i}.mp4 {i % 4}\n" for i in range(8)))
    return read_manifest(str(listing))


def batches(
    manifest: Manifest,
    device: str,
    *,
    workers: int = 0,
    first: int = 0,
    kind: str = "fine-tuning",
    **plan: int,
) -> list[ClipBatch]:
    """Return all micro-batches of three steps."""
    augment = replace(EVERYTHING, device=device)
    label_flip = LabelFlip(probability=0.5, mirrored={0: 1, 1: 0, 2: None})
    dataset = TrainClips(
        manifest,
        ClipConfig(num_frames=2, frame_stride=2, repeats=2),
        TrainTransform(augment if kind == "pre-training" else replace(augment, flip=0.0), 32),
        seed=0,
        independent_repeats=kind == "pre-training",
        label_flip=None if kind == "pre-training" else label_flip,
    )
    class_of = classes_to_balance(manifest) if kind == "balanced" else None
    steps = BatchPlan(num_records=8, batch_size=8, seed=0, class_of=class_of, **plan)
    found = train_loader(
        dataset, steps, first_step=first, last_step=3, workers=workers, context="fork"
    )
    return [batch for step in found for batch in step]


@pytest.mark.parametrize("kind", ["fine-tuning", "pre-training", "balanced"])
def test_batches_equal_those_of_workers(manifest: Manifest, kind: str) -> None:
    expected = batches(manifest, "worker", kind=kind, accumulate=2)
    raw = batches(manifest, "model", kind=kind, accumulate=2)
    assert len(raw) == 6 and all(batch.clips.dtype == torch.uint8 for batch in raw)
    for batch, other in zip(raw, expected):
        finished = batch.to(CPU)
        assert finished.pending is None and finished.to(CPU).clips is finished.clips
        torch.testing.assert_close(finished.clips, other.clips, atol=1e-5, rtol=0)
        for name in ("labels", "row", "view", "position"):
            assert torch.equal(getattr(finished, name), getattr(other, name))


@pytest.mark.parametrize(
    ("choice", "on_cpu", "on_gpu"),
    [("auto", "worker", "model"), ("worker", "worker", "worker"), ("model", "model", "model")],
)
def test_the_place_of_the_augmentation(choice: Any, on_cpu: str, on_gpu: str) -> None:
    augment = AugmentConfig(device=choice, mixup=0.8)
    for device, expected in (("cpu", on_cpu), ("cuda", on_gpu)):
        placed = place_augmentation(augment, torch.device(device))
        assert placed.device == expected and placed.mixup == 0.8


def digest(found: list[ClipBatch]) -> list[str]:
    finished = [batch.to(CPU) for batch in found]
    return [
        hashlib.sha256(batch.clips.numpy().tobytes() + bytes(batch.row.tolist())).hexdigest()
        for batch in finished
    ]


def test_workers_and_resuming_change_nothing(manifest: Manifest) -> None:
    expected = digest(batches(manifest, "model"))
    assert len(set(expected)) == 3
    assert digest(batches(manifest, "model", workers=2)) == expected
    assert digest(batches(manifest, "model", first=2, workers=1)) == expected[2:]


def test_two_ranks_take_the_samples_of_one(manifest: Manifest) -> None:
    def clips(world: int) -> dict[int, torch.Tensor]:
        found = [
            batches(manifest, "model", first=2, world=world, rank=rank)[0].to(CPU)
            for rank in range(world)
        ]
        return {
            place: clip
            for batch in found
            for place, clip in zip(batch.position.tolist(), batch.clips)
        }

    one, two = clips(1), clips(2)
    assert one.keys() == two.keys() == set(range(16))
    assert all(torch.equal(one[place], two[place]) for place in one)
