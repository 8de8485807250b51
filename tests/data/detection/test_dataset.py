"""Training samples and test crops of key frames: pixels and boxes stay together."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_link import FakeLink
from PIL import Image

from hiera_video.data.config import AugmentConfig
from hiera_video.data.detection.dataset import (
    BoxBatch,
    BoxBatchLoader,
    BoxViews,
    ClipBoxes,
    FrameCrops,
    KeyFrameViews,
    TrainKeyFrames,
)
from hiera_video.data.detection.key_frame import BoxManifest
from hiera_video.data.loading.batch_plan import BatchPlan
from hiera_video.data.loading.loader import train_loader
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.flip_labels import LabelFlip
from hiera_video.data.transforms.train_eval import TrainTransform, random_square
from hiera_video.errors import ManifestError
from hiera_video.train.feed import feed_steps
from hiera_video.video.options import FrameFolder

SQUARE = (slice(16, 32), slice(32, 48))
"""Rows and columns of the white square, as in conftest.py."""
GPU = torch.device("cuda", 0)
CLIP = ClipConfig(num_frames=4, frame_stride=2, target_fps=None)
PLAIN = {"scale": (1.0, 1.0), "ratio": (1.5, 1.5), "flip": 0.0, "device": "worker"}


def dataset(manifest: BoxManifest, **changes: Any) -> TrainKeyFrames:
    augment = AugmentConfig(**{**PLAIN, **changes.pop("augment", {})})
    return TrainKeyFrames(manifest, CLIP, TrainTransform(augment, 32), seed=0, **changes)


def test_a_whole_frame(box_manifest: BoxManifest) -> None:
    samples = dataset(box_manifest)[0, 0]
    (clip,), (boxes,) = samples.clips, samples.labels
    assert clip.pixels.shape == (3, 4, 32, 32)
    assert isinstance(boxes, ClipBoxes) and boxes.outside == 0
    np.testing.assert_allclose(boxes.boxes, [[10.667, 8, 16, 16], [0, 0, 2.667, 4]], rtol=1e-3)
    assert boxes.labels == ((0,), (1, 2))


def brightness_in_box(clip: torch.Tensor, box: np.ndarray) -> tuple[float, float]:
    """Return the mean grey level inside a box, without its border, and far outside."""
    grey = clip.mean(dim=(0, 1)) * 0.225 + 0.45
    left, top, right, bottom = (round(float(edge)) for edge in box)
    inside = grey[top + 2 : bottom - 2, left + 2 : right - 2].mean()
    outer = torch.ones_like(grey, dtype=torch.bool)
    outer[max(top - 3, 0) : bottom + 3, max(left - 3, 0) : right + 3] = False
    return float(inside), float(grey[outer].mean())


@pytest.mark.parametrize(
    "augment",
    [
        {"scale": (0.3, 1.0), "ratio": (0.75, 1.3333), "flip": 0.5},
        {"short_side": (36, 64), "flip": 1.0},
    ],
)
def test_the_box_of_the_square_stays_on_it(
    box_manifest: BoxManifest, augment: dict[str, Any]
) -> None:
    data = dataset(box_manifest, augment=augment)
    found = 0
    for epoch in range(12):
        samples = data[epoch, 0]
        (clip,), (boxes,) = samples.clips, samples.labels
        assert len(boxes.boxes) == len(boxes.labels) == 2 - boxes.outside
        if (0,) in boxes.labels:
            box = boxes.boxes[boxes.labels.index((0,))]
            if min(box[2] - box[0], box[3] - box[1]) > 7:
                inside, outside = brightness_in_box(clip.pixels, box)
                assert inside > 0.7 and outside < 0.15
                found += 1
    assert found >= 4


def test_flips_take_the_mirrored_label(box_manifest: BoxManifest) -> None:
    flip = LabelFlip(probability=1.0, mirrored={0: 1, 1: 0})
    samples = dataset(box_manifest, label_flip=flip)[0, 0]
    (boxes,) = samples.labels
    np.testing.assert_allclose(boxes.boxes[0], [16, 8, 21.333, 16], rtol=1e-4)
    assert boxes.labels == ((1,), (0, 2))
    assert brightness_in_box(samples.clips[0].pixels, boxes.boxes[0])[0] > 0.7
    never = LabelFlip(probability=1.0, mirrored={2: None})
    assert dataset(box_manifest, label_flip=never)[0, 0].labels[0].labels == ((0,), (1, 2))


def test_repeats_are_augmented_on_their_own(box_manifest: BoxManifest) -> None:
    data = dataset(box_manifest, augment={"box_jitter": 0.1})
    data.clip = replace(CLIP, repeats=2)
    first, second = data[0, 0].labels
    assert not np.array_equal(first.boxes, second.boxes)
    again, _ = data[0, 0].labels
    assert np.array_equal(first.boxes, again.boxes)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_batches_number_the_clips(box_manifest: BoxManifest, workers: int) -> None:
    data = dataset(box_manifest, augment={"scale": (1.0, 1.0), "ratio": (0.7, 0.7)})
    plan = BatchPlan(num_records=3, batch_size=3, seed=0, pairs=False)
    loader = train_loader(
        data, plan, first_step=0, last_step=1, workers=workers, batches=BoxBatchLoader
    )
    ((batch,),) = list(loader)
    assert isinstance(batch, BoxBatch)
    moved = batch.to(torch.device("cpu"))
    assert moved.clips.shape == (3, 3, 4, 32, 32) and moved.pending is None
    # the crop is the central part of a wide frame: the box in the corner lies outside
    by_row = {int(row): place for place, row in enumerate(moved.row)}
    expected = sorted([(by_row[0], 0), (by_row[2], 2)])
    assert [(int(box[0]), int(hot.argmax())) for box, hot in zip(moved.boxes, moved.labels)] == (
        expected
    )
    assert moved.outside == 1 and moved.labels.sum() == 2 and moved.labels.shape == (2, 3)


def test_a_batch_without_boxes(box_manifest: BoxManifest) -> None:
    manifest = replace(box_manifest, records=box_manifest.records[1:2])
    data = dataset(manifest, augment={"device": "model"}, num_classes=3, need_labels=False)
    plan = BatchPlan(num_records=1, batch_size=1, seed=0)
    ((batch,),) = list(
        train_loader(data, plan, first_step=0, last_step=1, workers=0, batches=BoxBatchLoader)
    )
    assert batch.pending is not None and len(batch.tensors()) == 4
    moved = batch.to(torch.device("cpu"))
    assert isinstance(moved, BoxBatch)
    assert moved.boxes.shape == (0, 5) and moved.labels.shape == (0, 3)
    assert moved.clips.shape == (1, 3, 4, 32, 32)


@pytest.mark.parametrize(
    ("crops", "views", "boxes", "outside"),
    [
        # short side 32: 32 × 48 pixels, crops at 0, 8 and 16, of which the first shows both
        (3, 1, [[0, 16, 8, 24, 16], [0, 0, 0, 4, 4]], 0),
        # the centre at 8
        (1, 1, [[0, 8, 8, 16, 16], [0, 0, 0, 0, 4]], 1),
    ],
)
def test_views_of_a_test(
    box_manifest: BoxManifest, crops: int, views: int, boxes: list[list[float]], outside: int
) -> None:
    transform = FrameCrops(32, crops, (0.45,) * 3, (0.225,) * 3)
    data = BoxViews(box_manifest, CLIP, transform)
    found = data[0]
    assert isinstance(found, KeyFrameViews)
    assert found.views.shape == (views, 3, 4, 32, 32) and found.outside.sum() == outside
    np.testing.assert_allclose(found.boxes, boxes, atol=1e-4)
    number, *edges = found.boxes[0].tolist()
    assert brightness_in_box(found.views[int(number)], np.array(edges))[0] > 0.7
    right = replace(box_manifest.records[0], boxes=np.array([[0, 0, 0.1, 1], [0.9, 0, 1, 1]]))
    two = BoxViews(replace(box_manifest, records=(right,)), CLIP, transform)[0]
    assert isinstance(two, KeyFrameViews)
    assert two.boxes[:, 0].tolist() == ([0, 1] if crops == 3 else [0, 0])
    assert len(two.crops) == (2 if crops == 3 else 1)
    empty = data[1]
    assert isinstance(empty, KeyFrameViews)
    assert len(empty.crops) == 0 and empty.boxes.shape == (0, 5)


def test_a_second_beyond_the_end_names_the_line(box_manifest: BoxManifest) -> None:
    record = replace(box_manifest.records[2], second=3.0, where="list.csv:7")
    manifest = replace(box_manifest, records=(record,))
    message = (
        r"^list.csv:7: second 3 lies outside .*b.mp4, which shows 0.00 to 1.50; correct the line, "
        r"or set detect.start_seconds to the second at which the videos start \(now 0\)$"
    )
    with pytest.raises(ManifestError, match=message):
        dataset(manifest)[0, 0]
    with pytest.raises(ManifestError, match=message):
        BoxViews(manifest, CLIP, FrameCrops(32, 1, (0.45,) * 3, (0.225,) * 3))[0]
    assert len(dataset(manifest, start_seconds=2.0)[0, 0].clips) == 1


def test_random_squares_follow_the_short_side() -> None:
    """Crop 224 of a short side of 256 to 320: 0.7 to 0.875 of it."""
    generator = random.Random(0)
    drawn = [
        random_square(480, 640, size=224, short_side=(256, 320), generator=generator)
        for _ in range(300)
    ]
    sides = [height for _, _, height, _ in drawn]
    assert min(sides) == 336 and max(sides) == 420
    assert all(height == width for _, _, height, width in drawn)
    assert all(top + side <= 480 and left + side <= 640 for top, left, side, _ in drawn)
    assert random_square(2, 9, size=4, short_side=(4, 4), generator=generator)[2:] == (2, 2)


@pytest.mark.parametrize("row", [0, 1])
def test_batches_are_staged_for_a_device(box_manifest: BoxManifest, row: int) -> None:
    manifest = replace(box_manifest, records=box_manifest.records[row : row + 1])
    data = dataset(manifest, augment={"device": "model"}, num_classes=3, need_labels=False)
    plan = BatchPlan(num_records=1, batch_size=1, seed=0)
    loaded = list(
        train_loader(data, plan, first_step=0, last_step=2, workers=0, batches=BoxBatchLoader)
    )
    link = FakeLink(late=True, computes=True)
    for step, plain in zip(feed_steps(iter(loaded), GPU, link=link), loaded, strict=True):
        moved, expected = step[0].to(GPU), plain[0].to(torch.device("cpu"))
        assert isinstance(moved, BoxBatch) and isinstance(expected, BoxBatch)
        assert moved.staged is None and moved.pending is None
        for name in ("clips", "labels", "boxes"):
            assert torch.equal(getattr(moved, name), getattr(expected, name))


def test_folders_of_pictures(box_manifest: BoxManifest, tmp_path: Path) -> None:
    """Frames extracted at 20 a second give the clips of the video."""
    folder = tmp_path / "a"
    folder.mkdir()
    frames = np.zeros((30, 64, 96, 3), np.uint8)
    frames[:, *SQUARE] = 255
    for number, frame in enumerate(frames, 1):
        Image.fromarray(frame).save(folder / f"img_{number:05d}.png")
    record = replace(box_manifest.records[0], path=str(folder))
    backend = FrameFolder(template="img_%05d.png", fps=20)
    transform = FrameCrops(32, 3, (0.45,) * 3, (0.225,) * 3)
    found = BoxViews(replace(box_manifest, records=(record,)), CLIP, transform, decoder=backend)[0]
    assert isinstance(found, KeyFrameViews)
    number, *edges = found.boxes[0].tolist()
    assert brightness_in_box(found.views[int(number)], np.array(edges))[0] > 0.9
    late = replace(record, second=1.6)
    with pytest.raises(
        ManifestError, match=r"second 1.6 lies outside .*a, which shows 0.00 to 1.5"
    ):
        BoxViews(replace(box_manifest, records=(late,)), CLIP, transform, decoder=backend)[0]
