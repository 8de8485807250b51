"""Training samples with PIL frame by frame, as PySlowFast and timm's recipes are usually run.

The random draws are the same as ours.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment as timm_augment
from torch.nn import functional as F

from hiera_video.data.config import AugmentConfig
from hiera_video.data.transforms import augment as ours
from hiera_video.data.transforms.clip_sample import ClipSample
from hiera_video.data.transforms.train_eval import TrainTransform, as_clip, random_box


def rand_augment(frames: np.ndarray, augment: AugmentConfig, generator: random.Random) -> list[Any]:
    """Apply timm's operations to frames [T, H, W, 3], with the parameters that ours would draw.

    Returns:
        T PIL images.
    """
    images = [Image.fromarray(frame) for frame in frames]
    for name in generator.choices(list(ours.OPERATIONS), k=augment.rand_augment_depth):
        if generator.random() < ours.OP_PROBABILITY:
            drawn = generator.gauss(augment.rand_augment, ours.MAGNITUDE_STD)
            level = min(max(drawn, 0.0), ours.MAX_MAGNITUDE)
            sign = -1.0 if generator.random() < 0.5 else 1.0
            arguments = timm_arguments(name, level, sign)
            operation = timm_augment.NAME_TO_OP[name]
            fill = (ours.FILL,) * 3
            images = [
                operation(image, *arguments, fillcolor=fill, resample=Image.Resampling.BICUBIC)
                for image in images
            ]
    return images


def timm_arguments(name: str, level: float, sign: float) -> tuple[Any, ...]:
    """Return timm's arguments of an operation, with `sign` instead of a random one."""
    level_function = timm_augment.LEVEL_TO_ARG[name]
    if level_function is None:
        return ()
    negate = timm_augment._randomly_negate
    timm_augment._randomly_negate = lambda value: sign * value
    try:
        # 10 would be 0 bits, which Pillow refuses to posterize to
        arguments: tuple[Any, ...] = level_function(min(level, 9.9), {})
        return arguments
    finally:
        timm_augment._randomly_negate = negate


class PilTransform(TrainTransform):
    """The usual order: images, RandAugment, floats, normalise, crop and resize, flip, erase."""

    def __call__(self, frames: np.ndarray, generator: random.Random) -> ClipSample:
        augment, size = self.augment, self.size
        images = rand_augment(frames, augment, generator)
        # what torchvision's ToTensor does to each
        tensors = [
            torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 255
            for image in images
        ]
        mean, std = (
            torch.tensor(values).view(3, 1, 1, 1) for values in (augment.mean, augment.std)
        )
        clip = (torch.stack(tensors, dim=1) - mean) / std
        top, left, height, width = random_box(
            *clip.shape[-2:], scale=augment.scale, ratio=augment.ratio, generator=generator
        )
        box = clip[..., top : top + height, left : left + width]
        clip = F.interpolate(box, size=(size, size), mode="bilinear", align_corners=False)
        clip = clip.flip(-1) if generator.random() < augment.flip else clip
        if generator.random() < augment.erase:
            erasure = ours.draw_erasure(clip.shape[1], size, size, generator=generator)
            if erasure is not None:
                erasure.fill(clip)
        return ClipSample(pixels=clip.contiguous())


class PilRandAugment(TrainTransform):
    """RandAugment with PIL and everything else ours: the cost of that one part."""

    def __call__(self, frames: np.ndarray, generator: random.Random) -> ClipSample:
        images = rand_augment(frames, self.augment, generator)
        return self.crop(as_clip(np.stack([np.asarray(image) for image in images])), generator)
