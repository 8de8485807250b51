"""Tasks turn a batch into a loss. The loop knows nothing else of what is learnt."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hiera_video.data.config import AugmentConfig
from hiera_video.data.loading.loader import ClipBatch
from hiera_video.data.manifest.record import Label, as_tuple
from hiera_video.data.transforms.mixup import mix, soft_targets


@dataclass(frozen=True)
class TaskOutput:
    """`loss`: mean over the clips of the batch. `logs`: name → (sum, count), so that averages over ranks are exact."""

    loss: Tensor
    logs: dict[str, tuple[Tensor, int]] = field(default_factory=dict)


class Task(Protocol):
    """One way to learn. `step` is the optimizer step, from which every random number of the task follows."""

    def __call__(self, model: nn.Module, batch: ClipBatch, step: int) -> TaskOutput: ...


def path_draws(seed: int, step: int, position: Tensor, depth: int) -> Tensor:
    """Uniform numbers [B, depth, 2] for drop path: a function of (seed, step, position in the global batch) alone, so
    that neither the world size nor the split of a batch changes which paths are dropped."""
    generators = sample_generators("drop_path", seed, step, position)
    return torch.stack([torch.rand(depth, 2, generator=generator) for generator in generators])


def sample_generators(
    purpose: str, seed: int, step: int, position: Tensor
) -> list[torch.Generator]:
    """A generator for each clip of a batch, from nothing but (purpose, seed, step, position in the global batch)."""
    numbers = [
        random.Random(f"{purpose}/{seed}/{step}/{index}").getrandbits(63)
        for index in position.tolist()
    ]
    return [torch.Generator().manual_seed(number) for number in numbers]


@dataclass(frozen=True, kw_only=True)
class Classify:
    """Action recognition: soft-target cross-entropy, or binary cross-entropy for several labels a video."""

    num_classes: int
    multi_label: bool
    augment: AugmentConfig
    depth: int
    """Blocks of the model, for drop path's draws."""
    seed: int
    class_weights: tuple[float, ...] | None = None
    """Factor of each class's part of the loss, from `class_weights`; None: all alike."""

    def __call__(self, model: nn.Module, batch: ClipBatch, step: int) -> TaskOutput:
        """`batch.clips` [B, 3, T, H, W] → mean loss over B. Top-1 is logged only where targets are not mixed."""
        augment, labels = self.augment, batch.labels
        if self.multi_label:
            targets = labels * (1 - augment.label_smoothing) + augment.label_smoothing / 2
        else:
            targets = soft_targets(labels, self.num_classes, augment.label_smoothing)
        mixer = random.Random(f"mix/{self.seed}/{step}")
        clips, targets = mix(
            batch.clips, targets, mixup=augment.mixup, cutmix=augment.cutmix, generator=mixer
        )
        draws = path_draws(self.seed, step, batch.position, self.depth).to(clips.device)
        logits = model(clips, path_draws=draws).float()
        weights = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        if self.multi_label:
            return TaskOutput(
                F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)
            )
        logs = {}
        if augment.mixup == augment.cutmix == 0:
            logs["top1"] = ((logits.argmax(dim=1) == labels).sum().detach(), len(labels))
        return TaskOutput(F.cross_entropy(logits, targets, weight=weights), logs)


def class_weights(
    labels: Sequence[Label], num_classes: int, *, multi_label: bool
) -> tuple[float, ...]:
    """One label a video: N / (K · n) for a class with n of the N videos, K classes having any, so that the mean weight
    of a video is 1. Several labels a video: the factor of positives, (N - n) / n. 0 for a class without a video.

    >>> class_weights([0, 0, 0, 1], 2, multi_label=False)
    (0.6666666666666666, 2.0)
    """
    counts = Counter(number for label in labels for number in as_tuple(label))
    total, present = len(labels), len(counts)
    return tuple(
        0.0
        if not counts[number]
        else (total - counts[number]) / counts[number]
        if multi_label
        else total / (present * counts[number])
        for number in range(num_classes)
    )


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Masked video pre-training: the loss of `mae_…` models, and two numbers that fall when features collapse."""

    draw_keep: Callable[[int, list[torch.Generator]], Tensor]
    """Clips of a batch and their generators → keep [B, units] bool, True = visible."""
    tokens: int
    """Tokens of the final grid, for the draws of a decoder that sees some of them."""
    depth: int
    """Blocks of the encoder, for drop path's draws."""
    seed: int

    def __call__(self, model: nn.Module, batch: ClipBatch, step: int) -> TaskOutput:
        """`batch.clips` [B, 3, T, H, W] → mean squared error on hidden tokens; labels are not looked at."""
        clips = batch.clips
        generators = sample_generators("keep", self.seed, step, batch.position)
        keep = self.draw_keep(len(clips), generators)
        draws = path_draws(self.seed, step, batch.position, self.depth)
        decoder_draws = torch.stack(
            [torch.rand(self.tokens, generator=generator) for generator in generators]
        )
        output = model(
            clips,
            keep=keep.to(clips.device),
            path_draws=draws.to(clips.device),
            decoder_draws=decoder_draws.to(clips.device),
        )
        std, rank = collapse_monitors(output.latent)
        return TaskOutput(output.loss, {"feature_std": (std, 1), "effective_rank": (rank, 1)})


@torch.no_grad()
def collapse_monitors(latent: Tensor) -> tuple[Tensor, Tensor]:
    """Mean standard deviation of the features over all tokens of a batch [B, N, C], and their effective rank: the
    participation ratio (Σλ)² / Σλ² of the covariance's eigenvalues λ, from 1 (one direction) to C (all alike)."""
    features = latent.float().flatten(0, 1)
    centred = features - features.mean(dim=0)
    with torch.autocast(
        latent.device.type, enabled=False
    ):  # the sums of a large batch overflow fp16
        covariance = centred.T @ centred / len(centred)
    rank = covariance.trace() ** 2 / covariance.square().sum().clamp_min(1e-30)
    return centred.square().mean(dim=0).sqrt().mean(), rank
