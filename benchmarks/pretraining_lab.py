"""Pre-training and fine-tuning in memory, for experiments that change one thing at a time.

All frames of a set are on the device, and clips are cut and resized there, so that a step of a
small model takes milliseconds on a GPU. Results agree with those of the commands in kind, not to
the digit: crops are resized by sampling points, and orders are drawn otherwise.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hiera_video as hv
from hiera_video.models.mae import MaskedAutoencoderHiera

MEAN, DEVIATION = 0.45, 0.225  # of the pixels, as in the recipes
WEIGHT_DECAY = 0.05
CHUNK = 64
"""Clips of a batch that is only evaluated."""


def seed_of(*names: object) -> int:
    """Return a seed that depends on all of `names`."""
    return random.Random("/".join(map(str, names))).getrandbits(63)


def read_frames(path: str, count: int | None = None, size: tuple[int, int] | None = None) -> Tensor:
    """Read frames of a video, uint8 [T, 3, H, W].

    Args:
        path: The video.
        count: Frames, evenly spread; the last ones repeat in a shorter video. None for all.
        size: Height and width to resize to.
    """
    with hv.open_video(path) as video:
        length = video.info.num_frames
        chosen = range(length) if count is None else spread(length, count)
        frames = torch.from_numpy(video.frames(list(chosen))).movedim(-1, 1)
    if size:
        resized = F.interpolate(frames.float(), size, mode="bilinear", antialias=True)
        frames = resized.round().clamp(0, 255).byte()
    return frames.contiguous()


def spread(length: int, count: int) -> list[int]:
    """Return the middle frame of each of `count` equal parts.

    >>> spread(8, 2), spread(2, 4)
    ([2, 6], [0, 0, 1, 1])
    """
    return [(2 * index + 1) * length // (2 * count) for index in range(count)]


@dataclass(frozen=True)
class Clips:
    """Clips of a fixed number of frames, cut from videos in memory."""

    frames: Tensor
    """All frames, uint8 [N, T, 3, H, W], on the device that trains."""
    size: int
    """Side of a clip in pixels."""
    consecutive: bool
    """Take frames in a row; otherwise one from each of `length` segments of the video."""
    length: int = 16
    """Frames of a clip."""
    stride: int = 1
    """Frames of the video from one of a clip to the next, with `consecutive`."""

    def train(
        self, rows: Sequence[int], generator: random.Random, scale: tuple[float, float], flip: bool
    ) -> Tensor:
        """Return a random clip and crop of each row, [B, 3, length, size, size]."""
        available, _, height, width = self.frames.shape[1:]
        boxes = [random_box(height, width, scale, generator) for _ in rows]
        indices = [self._random_indices(available, generator) for _ in rows]
        clips = self._cut(rows, indices, boxes)
        if not flip:
            return clips
        flips = torch.tensor([generator.random() < 0.5 for _ in rows], device=clips.device)
        return torch.where(flips.view(-1, 1, 1, 1, 1), clips.flip(-1), clips)

    def centre(self, rows: Sequence[int], place: float = 0.5, share: float = 1.0) -> Tensor:
        """Return the middle clip of each row, cropped to a square.

        Args:
            rows: Videos.
            place: Place of the crop, from 0 (left) to 1 (right).
            share: Side of the crop, as a share of the height.
        """
        available, _, height, width = self.frames.shape[1:]
        side = share * height
        box = ((height - side) / 2, (width - side) * place, side, side)
        if self.consecutive:
            middle = self._indices((available - self._span) // 2)
        else:
            middle = spread(available, self.length)
        return self._cut(rows, [middle] * len(rows), [box] * len(rows))

    @property
    def _span(self) -> int:
        """Frames of the video from the first of a clip to its last, both counted."""
        return (self.length - 1) * self.stride + 1

    def _indices(self, first: int) -> list[int]:
        return list(range(first, first + self._span, self.stride))

    def _random_indices(self, available: int, generator: random.Random) -> list[int]:
        length = self.length
        if self.consecutive:
            return self._indices(generator.randint(0, available - self._span))
        return [int((part + generator.random()) * available / length) for part in range(length)]

    def _cut(
        self,
        rows: Sequence[int],
        indices: list[list[int]],
        boxes: list[tuple[float, float, float, float]],
    ) -> Tensor:
        """Resize a box of each clip (top, left, height, width); average points where it shrinks."""
        device, (_, _, _, height, width) = self.frames.device, self.frames.shape
        frames = self.frames[
            torch.tensor(rows, device=device).unsqueeze(1), torch.tensor(indices, device=device)
        ]
        factor = 2 if sum(box[2] for box in boxes) > 1.3 * self.size * len(boxes) else 1
        points = self.size * factor
        steps = (torch.arange(points, device=device) + 0.5) / points
        top, left, tall, wide = torch.tensor(boxes, device=device).unsqueeze(2).unbind(1)
        down = ((top + tall * steps) / height * 2 - 1).unsqueeze(2).expand(-1, -1, points)
        across = ((left + wide * steps) / width * 2 - 1).unsqueeze(1).expand(-1, points, -1)
        pixels = F.grid_sample(
            frames.flatten(1, 2).float() / 255,
            torch.stack([across, down], dim=3),
            padding_mode="border",
            align_corners=False,
        )
        if factor > 1:
            pixels = F.avg_pool2d(pixels, factor)
        shape = (len(rows), self.length, 3, self.size, self.size)
        return ((pixels - MEAN) / DEVIATION).view(shape).transpose(1, 2).contiguous()


def random_box(
    height: int, width: int, scale: tuple[float, float], generator: random.Random
) -> tuple[float, float, float, float]:
    """Return top, left, height and width of a random crop; the largest square if none fits."""
    for _ in range(10):
        area = generator.uniform(*scale) * height * width
        ratio = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
        wide, tall = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if wide <= width and tall <= height:
            break
    else:
        wide = tall = min(height, width)
    return generator.uniform(0, height - tall), generator.uniform(0, width - wide), tall, wide


def shuffled_batches(
    rows: Iterable[int], size: int, seed: int
) -> tuple[Callable[[int], list[int]], int]:
    """Return a function from step to the rows of its batch, and the steps of an epoch."""
    rows, generator = list(rows), random.Random(seed)
    orders: dict[int, list[int]] = {}
    each = max(1, len(rows) // size)

    def batch(step: int) -> list[int]:
        epoch, place = divmod(step, each)
        while len(orders) <= epoch:
            orders[len(orders)] = generator.sample(rows, len(rows))
        return orders[epoch][place * size :][:size]

    return batch, each


def optimise(
    model: Any,
    loss: Callable[[int], Tensor],
    *,
    steps: int,
    warmup: int,
    lr: float,
    layer_decay: float = 1.0,
    weight_decay: float = WEIGHT_DECAY,
    clip_grad: float = 1.0,
) -> None:
    """Train with AdamW, linear warm-up and a cosine to 0.

    Args:
        model: A model of this package; in eval mode afterwards.
        loss: Step → loss.
        steps: Optimizer steps.
        warmup: Steps of warm-up.
        lr: Peak learning rate.
        layer_decay: Factor of the learning rate from a layer to the one below.
        weight_decay: Of matrices, except for position embeddings and the mask token.
        clip_grad: Largest norm of the gradient.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decayed = parameter.ndim > 1 and name not in model.no_weight_decay()
            rate = layer_decay ** (model.num_layers - model.layer_id(name))
            groups.setdefault((rate, weight_decay * decayed), []).append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": some, "weight_decay": decay} for (_, decay), some in groups.items()],
        betas=(0.9, 0.95),
        fused=True,
    )
    model.train()
    for step in range(steps):
        progress = (step - warmup) / max(steps - warmup, 1)
        share = (step + 1) / warmup if step < warmup else 0.5 * (1 + math.cos(math.pi * progress))
        for group, (rate, _) in zip(optimizer.param_groups, groups):
            group["lr"] = lr * share * rate
        optimizer.zero_grad()
        loss(step).backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip_grad)
        optimizer.step()
    model.eval()


def classifier(weights: dict[str, Tensor], num_classes: int, clips: Clips) -> nn.Module:
    """Return a micro Hiera with the encoder in `weights`; the rest is newly initialised."""
    size = (clips.length, clips.size, clips.size)
    model = hv.create_model("hiera_micro_16x32", num_classes=num_classes, input_size=size)
    own = model.state_dict()
    model.load_state_dict({key: weights[key] for key in weights if key in own}, strict=False)
    return model


@torch.no_grad()
def features(model: Any, views: Callable[[list[int]], Tensor], rows: Sequence[int]) -> Tensor:
    """Return the spatial means of the last map, [N, t, C]."""
    model.eval()
    parts = [
        model.forward_features(views(list(rows[first : first + CHUNK]))).float().mean((2, 3))
        for first in range(0, len(rows), CHUNK)
    ]
    return torch.cat(parts)


def ridge(known: Tensor, labels: Tensor, queries: Tensor, num_classes: int) -> Tensor:
    """Return scores [M, K] of `queries` [M, D] by a ridge regression on `known` [N, D]."""
    mean, deviation = known.mean(0), known.std(0) + 1e-6
    inputs, others = (((part - mean) / deviation).double() for part in (known, queries))
    targets = F.one_hot(labels, num_classes).double()
    penalty = 100 * torch.eye(inputs.shape[1], device=inputs.device)
    solution = torch.linalg.solve(
        inputs.T @ inputs + penalty, inputs.T @ (targets - targets.mean(0))
    )
    return others @ solution


@torch.no_grad()
def held_out_loss(model: MaskedAutoencoderHiera, views: Iterable[Tensor]) -> float:
    """Return the mean loss over batches of clips, with the same masks for every model."""
    torch.manual_seed(1)
    losses = [model(clips).loss.item() for clips in views]
    return sum(losses) / len(losses)


def top1(scores: Tensor, labels: Tensor) -> float:
    """Return the accuracy in percent."""
    return round(100 * float((scores.argmax(1) == labels).float().mean()), 1)
