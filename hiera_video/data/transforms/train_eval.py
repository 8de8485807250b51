"""Turn decoded frames into model input: crops, flip, resize, normalise.

`TrainTransform` draws its parameters from the generator that it is given, one set for all frames of
a clip. `EvalTransform` draws nothing: it is the test protocol of the Kinetics literature
(PySlowFast's rules), to the pixel.

Both resize as float, bilinearly and *without* antialiasing: what published numbers were measured
with. torchvision antialiases and rounds to uint8 by default, which moves top-1 by tenths of a
point.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from hiera_video.data.config import AugmentConfig
from hiera_video.data.transforms.augment import (
    color_jitter,
    draw_erasure,
    kernels,
    random_augment,
)
from hiera_video.data.transforms.clip_sample import ClipSample, PendingCrop
from hiera_video.data.transforms.multicrop import Crops, ReusedBuffer
from hiera_video.data.transforms.resize import CropResizer
from hiera_video.utils.checks import require
from hiera_video.utils.profiler import stage
from hiera_video.video.arguments import describe

CROP_TRIES = 10
"""Draws of a random crop before the largest centred one is taken instead."""


class TrainTransform:
    """RandAugment, colour jitter, random resized crop, flip, normalise and erase.

    Args:
        augment: Which of these are on, and how strong they are.
        size: Side of the square clips, in pixels.

    Raises:
        ConfigError: `size` is not above 0.
    """

    def __init__(self, augment: AugmentConfig, size: int) -> None:
        require(size > 0, f"crop size {size}: must be above 0")
        self.augment = augment
        self.size = size
        if augment.rand_augment > 0 or augment.color_jitter > 0:
            kernels()  # imported once, before workers are forked

    def __call__(self, frames: np.ndarray, generator: random.Random) -> ClipSample:
        """Return one augmented clip; the same generator state gives the same clip.

        Args:
            frames: uint8 [T, H, W, 3].
            generator: Source of all random numbers.

        Returns:
            A finished clip, float32 [3, T, size, size]; with `augment.device=model` the random
            crop, which is finished on the model's device.

        Raises:
            ConfigError: `frames` are of another shape or type.
        """
        with stage("augment"):
            clip = self.augment_frames(as_clip(frames), generator)
        with stage("crop"):
            return self.crop(clip, generator)

    def augment_frames(self, clip: Tensor, generator: random.Random) -> Tensor:
        """Apply RandAugment and colour jitter to a clip, uint8 [T, 3, H, W]."""
        augment = self.augment
        if augment.rand_augment > 0:
            clip = random_augment(
                clip,
                magnitude=augment.rand_augment,
                generator=generator,
                depth=augment.rand_augment_depth,
            )
        if augment.color_jitter > 0:
            clip = color_jitter(clip, strength=augment.color_jitter, generator=generator)
        return clip

    def crop(self, clip: Tensor, generator: random.Random) -> ClipSample:
        """Take a random crop of a clip, uint8 [T, 3, H, W], and finish it here or later."""
        sample, _ = self.draw_crop(clip, generator)
        return sample if self.augment.device == "model" else sample.finish()

    def draw_crop(
        self, clip: Tensor, generator: random.Random
    ) -> tuple[ClipSample, tuple[int, int, int, int]]:
        """Take a random crop of a clip, uint8 [T, 3, H, W].

        Returns:
            The unfinished crop, and its (top, left, height, width) in the frame.
        """
        augment, size = self.augment, self.size
        height, width = clip.shape[-2:]
        if augment.short_side is not None:
            drawn = random_square(
                height, width, size=size, short_side=augment.short_side, generator=generator
            )
        else:
            drawn = random_box(
                height, width, scale=augment.scale, ratio=augment.ratio, generator=generator
            )
        top, left, crop_height, crop_width = drawn
        box = clip[..., top : top + crop_height, left : left + crop_width]
        flip = generator.random() < augment.flip
        erases = generator.random() < augment.erase
        erasure = draw_erasure(len(clip), size, size, generator=generator) if erases else None
        sample = ClipSample(
            pixels=rearrange(box, "t c h w -> t h w c"),
            pending=PendingCrop(
                shape=(len(clip), crop_height, crop_width),
                flip=flip,
                erasure=erasure,
                size=size,
                mean=augment.mean,
                std=augment.std,
            ),
        )
        return sample, drawn


class EvalTransform:
    """Evenly spaced square crops along a frame's long side.

    With several crops, the short side is resized to `size`; with one, to 8/7 of it (256 for 224),
    and the crop is the centre.

    Args:
        size: Side of the crops, in pixels.
        crops: Crops of each clip; the usual protocols take 1 or 3.
        mean: Mean of the RGB channels in [0, 1].
        std: Standard deviation of the RGB channels in [0, 1].

    Raises:
        ConfigError: `size` or `crops` is not above 0.
    """

    def __init__(self, size: int, crops: int, mean: Sequence[float], std: Sequence[float]) -> None:
        require(size > 0, f"crop size {size}: must be above 0")
        require(
            crops > 0, f"test.crops={crops}: must be 1 or more; the usual protocols take 1 or 3"
        )
        self.size = size
        self.crops = crops
        self.mean = tuple(mean)
        self.std = tuple(std)
        self._buffer = ReusedBuffer()

    def __call__(self, frames: np.ndarray) -> Tensor:
        """Return the crops of one clip, from left to right (or top to bottom).

        Args:
            frames: uint8 [T, H, W, 3].

        Returns:
            float32 [crops, 3, T, size, size].

        Raises:
            ConfigError: `frames` are of another shape or type.
        """
        frames = as_frames(frames)
        return self.views_of(frames, [range(len(frames))]).stack()

    def views_of(self, frames: np.ndarray, clips: Sequence[Sequence[int]]) -> Crops:
        """Return the crops of several clips of one video, resizing each frame once.

        Args:
            frames: Distinct frames of the video, uint8 [N, H, W, 3].
            clips: For each clip, the places of its T frames among the N.
        """
        resizer, boxes = self._resizer(frames.shape[1], frames.shape[2])
        shape = (len(clips), 3, len(clips[0]), len(resizer.rows), len(resizer.columns))
        resized = self._buffer.take(shape)
        uses: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for clip, indices in enumerate(clips):
            for time, index in enumerate(indices):
                uses[index].append((clip, time))
        for index, targets in uses.items():
            # torch has no negative strides
            frame = resizer(torch.from_numpy(np.ascontiguousarray(frames[index])))
            for clip, time in targets:
                torch.sub(frame, resizer.shift, out=resized[clip, :, time])
        return Crops(clips=resized, boxes=boxes)

    def layout(self, height: int, width: int) -> tuple[tuple[int, int], list[tuple[int, int]]]:
        """Return the size that frames are resized to, and (top, left) of each crop in them."""
        short_side = self.size if self.crops > 1 else self.size * 8 // 7
        target = resized_size(height, width, short_side=short_side)
        return target, crop_offsets(*target, size=self.size, crops=self.crops)

    def _resizer(
        self, height: int, width: int
    ) -> tuple[CropResizer, tuple[tuple[int, int, int, int], ...]]:
        """Return what resizes the part that the crops cover, and the crops' boxes in that part."""
        target, offsets = self.layout(height, width)
        (top, left), (bottom, right) = offsets[0], offsets[-1]
        resizer = CropResizer(
            (height, width),
            target,
            rows=range(top, bottom + self.size),
            columns=range(left, right + self.size),
            mean=self.mean,
            std=self.std,
        )
        boxes = tuple((y - top, x - left, self.size, self.size) for y, x in offsets)
        return resizer, boxes


def resized_size(height: int, width: int, *, short_side: int) -> tuple[int, int]:
    """Return the size of a frame whose short side is resized to `short_side`, rounded down.

    >>> resized_size(256, 340, short_side=224)
    (224, 297)
    """
    # the divisions below can lose a pixel to rounding: 3 * (7 / 3) < 7
    if min(height, width) == short_side:
        return height, width
    if width < height:
        return math.floor(height / width * short_side), short_side
    return short_side, math.floor(width / height * short_side)


def crop_offsets(height: int, width: int, *, size: int, crops: int) -> list[tuple[int, int]]:
    """Return (top, left) of each crop: spread along the long side, centred on the short one.

    Halves are rounded up.

    >>> crop_offsets(224, 297, size=224, crops=3)
    [(0, 0), (0, 37), (0, 73)]
    """
    top, left = (height - size + 1) // 2, (width - size + 1) // 2
    if crops == 1:
        return [(top, left)]
    free = max(height, width) - size
    spread = [-(-free * i // (crops - 1)) for i in range(crops)]  # ceil of free * i / (crops - 1)
    return [(offset, left) if height > width else (top, offset) for offset in spread]


def random_box(
    height: int,
    width: int,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: random.Random,
) -> tuple[int, int, int, int]:
    """Draw a random crop: area uniform in `scale`, aspect ratio log-uniform in `ratio`.

    If no draw fits (in a very wide frame), take the largest centred box of an allowed aspect ratio.

    Args:
        height: Height of the frame.
        width: Width of the frame.
        scale: Range of the crop's area, as a share of the frame's.
        ratio: Range of width over height.
        generator: Source of the random numbers.

    Returns:
        (top, left, height, width).
    """
    for _ in range(CROP_TRIES):
        area = height * width * generator.uniform(*scale)
        aspect = math.exp(generator.uniform(math.log(ratio[0]), math.log(ratio[1])))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = generator.randint(0, height - crop_height)
            left = generator.randint(0, width - crop_width)
            return top, left, crop_height, crop_width
    crop_width = max(1, min(width, round(height * ratio[1])))
    crop_height = max(1, min(height, round(width / ratio[0])))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def random_square(
    height: int,
    width: int,
    *,
    size: int,
    short_side: tuple[int, int],
    generator: random.Random,
) -> tuple[int, int, int, int]:
    """Draw a square that has `size` pixels after the short side is resized to one in `short_side`.

    Returns:
        (top, left, height, width) in the frame as it is.
    """
    shortest = min(height, width)
    side = max(min(round(shortest * size / generator.randint(*short_side)), shortest), 1)
    return generator.randint(0, height - side), generator.randint(0, width - side), side, side


def as_clip(frames: np.ndarray) -> Tensor:
    """View uint8 frames [T, H, W, 3] as a clip [T, 3, H, W], torchvision's layout."""
    # torch refuses the negative strides of a flipped or rotated view
    clip = torch.from_numpy(np.ascontiguousarray(as_frames(frames)))
    return rearrange(clip, "t h w c -> t c h w")


def as_frames(frames: np.ndarray | Tensor) -> np.ndarray:
    """Return decoded frames, or a tensor of them, as an array.

    Raises:
        ConfigError: They are not uint8 [T, H, W, 3]: frames in [0, 1] or with another order of
            axes would become a clip that looks valid.
    """
    found = frames.numpy(force=True) if isinstance(frames, Tensor) else frames
    require(
        isinstance(found, np.ndarray)
        and found.dtype == np.uint8
        and found.ndim == 4
        and found.shape[-1] == 3
        and found.size > 0,
        f"frames are {describe(frames)}; give an array [T, H, W, 3] of uint8, as video.frames "
        "returns",
    )
    return found
