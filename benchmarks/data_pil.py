"""The training sample with PIL, frame by frame: how PySlowFast and timm's recipes are usually run. Same draws as ours."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment as timm_augment
from torch.nn import functional as F

from hiera_video.data.transforms import augment as ours
from hiera_video.data.transforms.train_eval import TrainTransform, as_clip, random_box


def rand_augment(frames: np.ndarray, magnitude: float, generator: random.Random) -> list[Any]:
    """uint8 [T, H, W, 3] → T pictures: timm's operations, with the parameters that ours draws."""
    pictures = [Image.fromarray(frame) for frame in frames]
    for name in generator.choices(list(ours.OPERATIONS), k=ours.NUM_OPS):
        if generator.random() < ours.OP_PROBABILITY:
            drawn = generator.gauss(magnitude, ours.MAGNITUDE_STD)
            level = min(max(drawn, 0.0), ours.MAX_MAGNITUDE)
            sign = -1.0 if generator.random() < 0.5 else 1.0
            negate, timm_augment._randomly_negate = (
                timm_augment._randomly_negate,
                lambda value, s=sign: s * value,
            )
            level_function = timm_augment.LEVEL_TO_ARG[name]
            arguments = (
                () if level_function is None else level_function(min(level, 9.9), {})
            )  # 0 bits: Pillow refuses
            timm_augment._randomly_negate = negate
            operation = timm_augment.NAME_TO_OP[name]
            fill = (ours.FILL,) * 3
            pictures = [
                operation(picture, *arguments, fillcolor=fill, resample=Image.Resampling.BICUBIC)
                for picture in pictures
            ]
    return pictures


class PilTransform(TrainTransform):
    """The whole sample in the usual order: pictures, RandAugment, floats, normalise, crop and scale, flip, erase."""

    def __call__(self, frames: np.ndarray, generator: random.Random) -> torch.Tensor:
        augment, size = self.augment, self.size
        pictures = rand_augment(frames, augment.rand_augment, generator)
        # what torchvision's ToTensor does to each
        tensors = [
            torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float() / 255
            for picture in pictures
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
        return clip.contiguous()


class PilAugmentAlone(TrainTransform):
    """RandAugment with PIL, all else ours: what that one part costs."""

    def __call__(self, frames: np.ndarray, generator: random.Random) -> Any:
        pictures = rand_augment(frames, self.augment.rand_augment, generator)
        return self.cropped(
            as_clip(np.stack([np.asarray(picture) for picture in pictures])), generator
        )
