"""Tasks turn a batch into a loss. The loop knows nothing else of what is learnt."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hiera_video.data.config import AugmentConfig
from hiera_video.data.loader import ClipBatch
from hiera_video.data.mixing import mix, soft_targets


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
    draws = []
    for index in position.tolist():
        generator = torch.Generator().manual_seed(random.Random(f"drop_path/{seed}/{step}/{index}").getrandbits(63))
        draws.append(torch.rand(depth, 2, generator=generator))
    return torch.stack(draws)


@dataclass(frozen=True, kw_only=True)
class Classify:
    """Action recognition: soft-target cross-entropy, or binary cross-entropy for several labels a video."""

    num_classes: int
    multi_label: bool
    augment: AugmentConfig
    depth: int
    """Blocks of the model, for drop path's draws."""
    seed: int

    def __call__(self, model: nn.Module, batch: ClipBatch, step: int) -> TaskOutput:
        """`batch.clips` [B, 3, T, H, W] → mean loss over B. Top-1 is logged only where targets are not mixed."""
        augment, labels = self.augment, batch.labels
        if self.multi_label:
            targets = labels * (1 - augment.label_smoothing) + augment.label_smoothing / 2
        else:
            targets = soft_targets(labels, self.num_classes, augment.label_smoothing)
        mixer = random.Random(f"mix/{self.seed}/{step}")
        clips, targets = mix(batch.clips, targets, mixup=augment.mixup, cutmix=augment.cutmix, generator=mixer)
        draws = path_draws(self.seed, step, batch.position, self.depth).to(clips.device)
        logits = model(clips, path_draws=draws).float()
        if self.multi_label:
            return TaskOutput(F.binary_cross_entropy_with_logits(logits, targets))
        logs = {}
        if augment.mixup == augment.cutmix == 0:
            logs["top1"] = ((logits.argmax(dim=1) == labels).sum().detach(), len(labels))
        return TaskOutput(F.cross_entropy(logits, targets), logs)
