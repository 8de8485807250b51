"""The test protocol to the pixel; the training transform's statistics and repeatability."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hiera_video.data.config import AugmentConfig
from hiera_video.data.transforms.train_eval import (
    EvalTransform,
    TrainTransform,
    crop_offsets,
    random_box,
    resized_size,
)
from hiera_video.errors import ConfigError

MEAN, STD = (0.45, 0.40, 0.35), (0.225, 0.25, 0.2)


def noise(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def reference_resized(frames: np.ndarray, height: int, width: int) -> torch.Tensor:
    """Return [3, T, height, width] by the published order, in float32: normalise, interpolate."""
    clip = torch.from_numpy(frames).float() / 255
    clip = (clip - torch.tensor(MEAN)) / torch.tensor(STD)
    return torch.nn.functional.interpolate(
        clip.permute(3, 0, 1, 2),
        size=(height, width),
        mode="bilinear",
        align_corners=False,
        antialias=False,
    )


@pytest.mark.parametrize(
    ("height", "width", "short_side", "expected"),
    [
        (256, 340, 224, (224, 297)),  # 297.5 goes down
        (340, 256, 256, (340, 256)),
        (360, 640, 256, (256, 455)),
        (240, 320, 224, (224, 298)),
        (120, 120, 224, (224, 224)),
        (49, 107, 49, (49, 107)),  # 107 / 49 * 49 is 106.99999999999999
    ],
)
def test_resized_size(height: int, width: int, short_side: int, expected: tuple[int, int]) -> None:
    assert resized_size(height, width, short_side=short_side) == expected


def test_crop_offsets() -> None:
    assert crop_offsets(224, 297, size=224, crops=3) == [(0, 0), (0, 37), (0, 73)]
    assert crop_offsets(297, 224, size=224, crops=3) == [(0, 0), (37, 0), (73, 0)]
    assert crop_offsets(256, 341, size=224, crops=1) == [(16, 59)]  # ceil(58.5)
    assert crop_offsets(224, 224, size=224, crops=3) == [(0, 0)] * 3
    assert crop_offsets(32, 62, size=32, crops=5) == [(0, 0), (0, 8), (0, 15), (0, 23), (0, 30)]


@pytest.mark.parametrize(("height", "width"), [(64, 85), (85, 64), (33, 90)])
def test_three_crops_are_the_published_protocol(height: int, width: int) -> None:
    frames = noise(3, height, width)
    size = 56
    views = EvalTransform(size, 3, MEAN, STD)(frames)
    assert views.shape == (3, 3, 3, size, size) and views.dtype == torch.float32
    long_side = math.floor(max(height, width) / min(height, width) * size)
    offsets = [0, math.ceil((long_side - size) / 2), long_side - size]
    if height > width:
        scaled = reference_resized(frames, long_side, size)
        expected = [scaled[:, :, offset : offset + size] for offset in offsets]
    else:
        scaled = reference_resized(frames, size, long_side)
        expected = [scaled[..., offset : offset + size] for offset in offsets]
    torch.testing.assert_close(views, torch.stack(expected), atol=2e-5, rtol=0)


def test_one_crop_is_the_centre_of_a_larger_picture() -> None:
    frames = noise(2, 256, 341)
    views = EvalTransform(224, 1, MEAN, STD)(frames)
    # 256 = 224 * 8 / 7: nothing is resized
    expected = reference_resized(frames, 256, 341)[None, :, :, 16:240, 59:283]
    torch.testing.assert_close(views, expected, atol=2e-5, rtol=0)


def test_a_frame_is_not_antialiased() -> None:
    frames = noise(1, 128, 128)
    plain = EvalTransform(32, 3, MEAN, STD)(frames)
    # two by two pixels of noise averaged: 1.3 / 2; antialiasing would leave about 0.25
    assert plain[0].std() > 0.5


def test_frames_with_negative_strides_are_accepted() -> None:
    frames = noise(2, 40, 40)
    transform = EvalTransform(40, 3, MEAN, STD)
    torch.testing.assert_close(transform(frames[:, ::-1]), transform(frames).flip(-2))


def test_a_training_clip_depends_on_the_generator_alone() -> None:
    everything = AugmentConfig(rand_augment=7, erase=0.5)
    transform = TrainTransform(everything, 32)
    frames = noise(4, 40, 52)
    deeper = TrainTransform(replace(everything, rand_augment_depth=4), 32)
    assert not torch.equal(
        deeper(frames, random.Random(1)).pixels, transform(frames, random.Random(1)).pixels
    )
    clips = [transform(frames, random.Random(index)).pixels for index in (1, 1, 2)]
    assert clips[0].shape == (3, 4, 32, 32) and clips[0].dtype == torch.float32
    assert torch.equal(clips[0], clips[1]) and not torch.equal(clips[0], clips[2])


def test_training_treats_all_frames_alike() -> None:
    still = np.repeat(noise(1, 40, 52), 4, axis=0)
    transform = TrainTransform(AugmentConfig(rand_augment=10), 32)
    for index in range(20):
        clip = transform(still, random.Random(index)).pixels
        assert torch.equal(clip, clip[:, :1].expand_as(clip))


def test_the_whole_frame_without_a_flip_is_resized() -> None:
    augment = AugmentConfig(scale=(1, 1), ratio=(1, 1), flip=0, mean=MEAN, std=STD)
    frames = noise(2, 40, 40)
    clip = TrainTransform(augment, 32)(frames, random.Random(0)).pixels
    torch.testing.assert_close(clip, reference_resized(frames, 32, 32), atol=2e-5, rtol=0)
    flipped = TrainTransform(replace(augment, flip=1), 32)(frames, random.Random(0)).pixels
    torch.testing.assert_close(flipped, clip.flip(-1))


def test_random_box_keeps_its_ranges() -> None:
    generator = random.Random(0)
    boxes = [
        random_box(240, 320, scale=(0.5, 1), ratio=(3 / 4, 4 / 3), generator=generator)
        for _ in range(2000)
    ]
    for top, left, height, width in boxes:
        assert top >= 0 and left >= 0 and top + height <= 240 and left + width <= 320
        assert 0.49 < height * width / (240 * 320) <= 1
        assert 0.74 < width / height < 1.35
    assert (
        min(top for top, *_ in boxes) == 0
        and max(top + height for top, _, height, _ in boxes) == 240
    )


def test_random_box_of_a_very_wide_frame_is_centred() -> None:
    box = random_box(10, 1000, scale=(0.9, 1), ratio=(3 / 4, 4 / 3), generator=random.Random(0))
    assert box == (0, 493, 10, 13)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: EvalTransform(224, 0, MEAN, STD), "test.crops=0: must be 1 or more"),
        (lambda: EvalTransform(0, 1, MEAN, STD), "crop size 0: must be above 0"),
        (lambda: TrainTransform(AugmentConfig(), 0), "crop size 0: must be above 0"),
    ],
)
def test_impossible_sizes_are_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


@pytest.mark.parametrize(
    ("frames", "named"),
    [
        (noise(4, 8, 8) / 255, r"an array \[4, 8, 8, 3\] of float64"),
        (noise(4, 8, 8).astype(int), r"an array \[4, 8, 8, 3\] of int64"),
        (noise(4, 8, 8)[..., :1], r"an array \[4, 8, 8, 1\] of uint8"),
        (noise(4, 8, 8).transpose(0, 3, 1, 2), r"an array \[4, 3, 8, 8\] of uint8"),
        (noise(1, 8, 8)[0], r"an array \[8, 8, 3\] of uint8"),
        (noise(0, 8, 8), r"an array \[0, 8, 8, 3\] of uint8"),
        (torch.rand(4, 8, 8, 3), r"a tensor \[4, 8, 8, 3\] of float32"),
        (list(noise(4, 8, 8)), "a list"),
        (None, "None"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_frames_of_another_form_are_refused(frames: Any, named: str) -> None:
    words = rf"^frames are {named}; give an array \[T, H, W, 3\] of uint8, as video.frames returns$"
    with pytest.raises(ConfigError, match=words):
        EvalTransform(16, 1, MEAN, STD)(frames)
    with pytest.raises(ConfigError, match=words):
        TrainTransform(AugmentConfig(), 16)(frames, random.Random(0))


def test_a_tensor_of_frames_is_as_good_as_an_array() -> None:
    frames, plain = noise(4, 20, 24), AugmentConfig(rand_augment=0)
    tensor: Any = torch.from_numpy(frames)
    transform = EvalTransform(16, 3, MEAN, STD)
    assert torch.equal(transform(tensor), transform(frames))
    drawn = [TrainTransform(plain, 16)(f, random.Random(1)).pixels for f in (tensor, frames)]
    assert torch.equal(*drawn)
