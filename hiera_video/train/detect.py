"""Training of an action detector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from hiera_video.data.detection.dataset import BoxBatch
from hiera_video.data.loading.loader import ClipBatch
from hiera_video.runtime.transfer import copy_to_device
from hiera_video.train.context import StepContext
from hiera_video.train.tasks import TaskOutput


@dataclass(frozen=True, kw_only=True)
class DetectActions:
    """Action detection by binary cross-entropy of every class in every box.

    The loss is the mean over classes and the boxes of a clip, then over clips, so that neither
    gradient accumulation nor the number of processes changes it. A clip without boxes adds 0.
    """

    class_weights: tuple[float, ...] | None = None
    """Weight of the positives of each class, from `class_weights`; None weighs all equally."""

    def __call__(self, model: nn.Module, batch: ClipBatch, context: StepContext) -> TaskOutput:
        """Return the loss, and the numbers of boxes inside and outside of a clip."""
        assert isinstance(batch, BoxBatch)
        logits = model(batch.clips, path_draws=context.path_draws, boxes=batch.boxes).float()
        weights = None
        if self.class_weights is not None:
            weights = copy_to_device(torch.tensor(self.class_weights), logits.device)
        losses = F.binary_cross_entropy_with_logits(
            logits, batch.labels, pos_weight=weights, reduction="none"
        ).mean(dim=1)
        clips = len(batch.row)
        # no sum by index, which is not deterministic on a GPU, nor `@`, which autocast rounds
        of_clip = batch.boxes[:, :1] == torch.arange(clips, device=logits.device)
        share = of_clip / of_clip.sum(dim=0).clamp(min=1)
        return TaskOutput(
            (losses.unsqueeze(1) * share).sum(dim=0).mean(),
            {
                "boxes": (torch.tensor(len(losses)), clips),
                "boxes_outside": (torch.tensor(batch.outside), clips),
            },
        )
