"""From decoded frames to the tensor that the model sees: crops, flip, scaling, normalisation.

`TrainTransform` draws its parameters from the generator that it is given, one set for all frames of a clip.
`EvalTransform` draws nothing: it is the test protocol of the Kinetics literature (PySlowFast's rules), to the pixel.

Both scale as float, bilinear and *without* antialiasing: what published numbers were measured with. torchvision
antialiases and rounds to uint8 unless told not to, which moves top-1 by tenths of a point.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from hiera_video.data.config import AugmentConfig
from hiera_video.data.transforms.augment import color_jitter, draw_erasure, random_augment
from hiera_video.data.transforms.multicrop import Crops, Memory
from hiera_video.data.transforms.on_device import UnfinishedClip
from hiera_video.data.transforms.resize import Scaling
from hiera_video.utils.checks import require
from hiera_video.utils.profiler import stage

CROP_TRIES = 10
"""Draws of a random crop before the largest centred one is taken instead."""


class TrainTransform:
    """RandAugment, colour jitter, random resized crop, flip, normalise, erase: the switches are in `AugmentConfig`."""

    def __init__(self, augment: AugmentConfig, size: int) -> None:
        require(size > 0, f"crop size {size}: must be above 0")
        self.augment = augment
        self.size = size

    def __call__(self, frames: np.ndarray, generator: random.Random) -> Tensor | UnfinishedClip:
        """uint8 [T, H, W, 3] → float32 [3, T, size, size], or what becomes that with `augment.device=model`; the same
        generator state gives the same clip."""
        with stage("augment"):
            clip = self.augmented(as_clip(frames), generator)
        with stage("crop"):
            return self.cropped(clip, generator)

    def augmented(self, clip: Tensor, generator: random.Random) -> Tensor:
        """uint8 [T, 3, H, W] → the same after RandAugment and colour jitter."""
        augment = self.augment
        if augment.rand_augment > 0:
            clip = random_augment(clip, magnitude=augment.rand_augment, generator=generator)
        if augment.color_jitter > 0:
            clip = color_jitter(clip, strength=augment.color_jitter, generator=generator)
        return clip

    def cropped(self, clip: Tensor, generator: random.Random) -> Tensor | UnfinishedClip:
        """uint8 [T, 3, H, W] → what `self` gives. Every number is drawn here, wherever the work is done."""
        augment, size = self.augment, self.size
        height, width = clip.shape[-2:]
        top, left, crop_height, crop_width = random_box(
            height, width, scale=augment.scale, ratio=augment.ratio, generator=generator
        )
        box = clip[..., top : top + crop_height, left : left + crop_width]
        flip = generator.random() < augment.flip
        erases = generator.random() < augment.erase
        erasure = draw_erasure(len(clip), size, size, generator=generator) if erases else None
        pixels = rearrange(box, "t c h w -> t h w c")
        if augment.device == "model":
            return UnfinishedClip(
                box=pixels,
                flip=flip,
                erasure=erasure,
                size=size,
                mean=augment.mean,
                std=augment.std,
            )
        finished = self._scaled(pixels, flip)
        if erasure is not None:
            erasure.fill(finished)
        return finished

    def _scaled(self, box: Tensor, flip: bool) -> Tensor:
        """uint8 [T, h, w, 3] → float32 [3, T, size, size], normalised, flipped."""
        whole = range(self.size)
        scaling = Scaling(
            (box.shape[1], box.shape[2]),
            (self.size, self.size),
            rows=whole,
            columns=whole,
            mean=self.augment.mean,
            std=self.augment.std,
        )
        scaled = torch.from_numpy(
            np.empty((3, len(box), self.size, self.size), np.float32)
        )  # as below: huge pages
        for time, frame in enumerate(box):
            picture = scaling(frame)
            torch.sub(picture.flip(-1) if flip else picture, scaling.shift, out=scaled[:, time])
        return scaled


class EvalTransform:
    """Evenly spaced square crops along the long side. With several, the short side is scaled to `size`; with one,
    to 8/7 of it (256 for 224) and the crop is the centre."""

    def __init__(self, size: int, crops: int, mean: Sequence[float], std: Sequence[float]) -> None:
        require(size > 0, f"crop size {size}: must be above 0")
        require(
            crops > 0, f"test.crops={crops}: must be 1 or more; the usual protocols take 1 or 3"
        )
        self.size = size
        self.crops = crops
        self._memory = Memory()
        self.mean = tuple(mean)
        self.std = tuple(std)

    def __call__(self, frames: np.ndarray) -> Tensor:
        """uint8 [T, H, W, 3] → float32 [crops, 3, T, size, size], crops from left to right (top to bottom)."""
        return self.views_of(frames, [range(len(frames))]).stacked()

    def views_of(self, frames: np.ndarray, clips: Sequence[Sequence[int]]) -> Crops:
        """The views of several clips of one video: uint8 [N, H, W, 3] and the places of each clip's T frames among the N.
        Each frame is scaled once, whichever clips and crops it is in."""
        short_side = self.size if self.crops > 1 else self.size * 8 // 7
        height, width = scaled_size(*frames.shape[1:3], short_side=short_side)
        offsets = crop_offsets(height, width, size=self.size, crops=self.crops)
        (top, left), (bottom, right) = offsets[0], offsets[-1]
        scaling = Scaling(
            (frames.shape[1], frames.shape[2]),
            (height, width),
            rows=range(top, bottom + self.size),
            columns=range(left, right + self.size),
            mean=self.mean,
            std=self.std,
        )
        shape = (len(clips), 3, len(clips[0]), len(scaling.rows), len(scaling.columns))
        scaled = self._memory(shape)
        places: dict[int, list[tuple[int, int]]] = {}
        for clip, indices in enumerate(clips):
            for time, index in enumerate(indices):
                places.setdefault(index, []).append((clip, time))
        for index, targets in places.items():
            frame = scaling(
                torch.from_numpy(np.ascontiguousarray(frames[index]))
            )  # torch has no negative strides
            for clip, time in targets:
                torch.sub(frame, scaling.shift, out=scaled[clip, :, time])
        return Crops(
            clips=scaled, boxes=tuple((y - top, x - left, self.size, self.size) for y, x in offsets)
        )


def scaled_size(height: int, width: int, *, short_side: int) -> tuple[int, int]:
    """The size after scaling the short side: `scaled_size(256, 340, short_side=224) == (224, 297)`."""
    if (
        min(height, width) == short_side
    ):  # the division below can lose a pixel to rounding: 3 * (7 / 3) < 7
        return height, width
    if width < height:
        return math.floor(height / width * short_side), short_side
    return short_side, math.floor(width / height * short_side)


def crop_offsets(height: int, width: int, *, size: int, crops: int) -> list[tuple[int, int]]:
    """(top, left) of each crop: spread over the long side and centred on the short one, halves rounded up.

    `crop_offsets(224, 297, size=224, crops=3) == [(0, 0), (0, 37), (0, 73)]`
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
    """(top, left, height, width) of a random crop: area uniform in `scale`, aspect log-uniform in `ratio`.

    Where no draw fits (a very wide frame), the largest centred box whose aspect is allowed.
    """
    for _ in range(CROP_TRIES):
        area = height * width * generator.uniform(*scale)
        aspect = math.exp(generator.uniform(math.log(ratio[0]), math.log(ratio[1])))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top, left = (
                generator.randint(0, height - crop_height),
                generator.randint(0, width - crop_width),
            )
            return top, left, crop_height, crop_width
    crop_width = max(1, min(width, round(height * ratio[1])))
    crop_height = max(1, min(height, round(width / ratio[0])))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def as_clip(frames: np.ndarray) -> Tensor:
    """uint8 [T, H, W, 3] → uint8 [T, 3, H, W]: a view, where torchvision's kernels expect the channels."""
    assert frames.ndim == 4 and frames.shape[-1] == 3 and frames.dtype == np.uint8, (
        frames.shape,
        frames.dtype,
    )
    frames = np.ascontiguousarray(
        frames
    )  # torch refuses the negative strides of a flipped or rotated view
    return rearrange(torch.from_numpy(frames), "t h w c -> t c h w")
