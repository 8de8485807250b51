"""Training tasks: each turns a batch of clips into a loss."""

from __future__ import annotations

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
from hiera_video.errors import ConfigError
from hiera_video.runtime.transfer import copy_to_device
from hiera_video.train.context import StepContext


@dataclass(frozen=True)
class TaskOutput:
    """Loss and metrics of one micro-batch."""

    loss: Tensor
    """Mean over the clips of the batch."""
    logs: dict[str, tuple[Tensor, int]] = field(default_factory=dict)
    """Metric name → (sum, count), from which averages over ranks and steps are exact."""

    def __post_init__(self) -> None:
        # a message with a tensor's value would make the host wait in every step
        if not (isinstance(self.loss, Tensor) and self.loss.ndim == 0):
            raise ConfigError(
                f"TaskOutput: the loss is {_kind_of(self.loss)}; must be a tensor of one number, "
                "as loss.mean()"
            )
        for name, value in self.logs.items():
            pair = isinstance(value, tuple) and len(value) == 2
            if not (pair and isinstance(value[0], Tensor)):
                raise ConfigError(
                    f"TaskOutput: {name!r} is {_kind_of(value)}; must be (sum, count), a tensor "
                    "and the number of clips in it"
                )


def _kind_of(value: object) -> str:
    shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
    return f"a {type(value).__name__}{shape}"


class Task(Protocol):
    """A learning objective."""

    def __call__(self, model: nn.Module, batch: ClipBatch, context: StepContext) -> TaskOutput:
        """Return the loss of `batch`.

        Args:
            model: The model to call as `model(…)`: under DDP and FSDP, calling its parts would
                bypass gradient synchronisation.
            batch: Clips [B, 3, T, H, W] and labels on the model's device.
            context: Source of all random numbers.
        """


@dataclass(frozen=True, kw_only=True)
class Classify:
    """Action recognition by cross-entropy, or by binary cross-entropy for multi-label data."""

    num_classes: int
    multi_label: bool
    augment: AugmentConfig
    class_weights: tuple[float, ...] | None = None
    """Weight of each class in the loss, from `class_weights`; None weighs all classes equally."""

    def __call__(self, model: nn.Module, batch: ClipBatch, context: StepContext) -> TaskOutput:
        """Return the loss of `batch`, and its top-1 accuracy unless clips are mixed."""
        augment, labels = self.augment, batch.labels
        if self.multi_label:
            targets = labels * (1 - augment.label_smoothing) + augment.label_smoothing / 2
        else:
            targets = soft_targets(labels, self.num_classes, augment.label_smoothing)
        clips, targets = mix(
            batch.clips,
            targets,
            mixup=augment.mixup,
            cutmix=augment.cutmix,
            generator=context.batch_generator("mix"),
        )
        trained = len(batch.row)  # partners after these were only to be mixed in
        clips, targets = clips[:trained], targets[:trained]
        logits = model(clips, path_draws=context.path_draws).float()
        weights = None
        if self.class_weights is not None:
            weights = copy_to_device(torch.tensor(self.class_weights), logits.device)
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
    """Return the weight of each class in the loss, by the inverse of its frequency.

    Args:
        labels: Label of each of the N videos.
        num_classes: Length of the result.
        multi_label: Each video has several labels.

    Returns:
        For a class with n videos: N / (K · n), where K classes have any videos, so that the mean
        weight of a video is 1. Multi-label: the weight of positives, (N - n) / n. 0 for a class
        without videos.

    >>> class_weights([0, 0, 0, 1], 2, multi_label=False)
    (0.6666666666666666, 2.0)
    """
    counts = Counter(number for label in labels for number in as_tuple(label))
    total, present = len(labels), len(counts)

    def weight(count: int) -> float:
        if not count:
            return 0.0
        return (total - count) / count if multi_label else total / (present * count)

    return tuple(weight(counts[number]) for number in range(num_classes))


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Masked video pre-training with an `mae_…` model."""

    draw_keep: Callable[[int, list[torch.Generator]], Tensor]
    """Draws the visible mask units: (B, generators) → keep, bool [B, units], True = visible."""
    tokens: int
    """Tokens of the final grid, for the draws of a decoder that gets some of them."""
    visible: int | None = None
    """Units that `draw_keep` shows of each clip; unset: the model counts them."""

    def __call__(self, model: nn.Module, batch: ClipBatch, context: StepContext) -> TaskOutput:
        """Return the mean squared error on hidden tokens; labels are ignored.

        Logs `feature_std` and `effective_rank`, which fall when features collapse.
        """
        return self.output(model, *self.inputs(batch, context))

    def inputs(self, batch: ClipBatch, context: StepContext) -> tuple[Tensor, ...]:
        """Return clips, visible units, and the draws of drop path and of the decoder.

        That is all that changes from step to step; `output` does the rest on the device alone.
        """
        clips, generators = batch.clips, context.generators("keep")
        keep = self.draw_keep(len(clips), generators)
        decoder_draws = torch.stack(
            [torch.rand(self.tokens, generator=generator) for generator in generators]
        )
        return (
            clips,
            copy_to_device(keep, clips.device),
            context.path_draws,
            copy_to_device(decoder_draws, clips.device),
        )

    def output(self, model: nn.Module, *inputs: Tensor) -> TaskOutput:
        """Return the loss of `inputs`, and the numbers that `__call__` logs."""
        clips, keep, path_draws, decoder_draws = inputs
        output = model(
            clips,
            keep=keep,
            path_draws=path_draws,
            decoder_draws=decoder_draws,
            visible=self.visible,
        )
        std, rank = collapse_monitors(output.latent)
        return TaskOutput(output.loss, {"feature_std": (std, 1), "effective_rank": (rank, 1)})


@torch.no_grad()
def collapse_monitors(latent: Tensor) -> tuple[Tensor, Tensor]:
    """Return two scalars that show whether features collapse.

    Args:
        latent: Features [B, N, C].

    Returns:
        The standard deviation over all tokens, averaged over channels; and the effective rank, the
        participation ratio (Σλ)² / Σλ² of the covariance's eigenvalues λ, from 1 (all variance in
        one direction) to C (equal variance in all).
    """
    features = latent.float().flatten(0, 1)
    centred = features - features.mean(dim=0)
    # sums over a large batch overflow fp16
    with torch.autocast(latent.device.type, enabled=False):
        covariance = centred.T @ centred / len(centred)
    rank = covariance.trace() ** 2 / covariance.square().sum().clamp_min(1e-30)
    return centred.square().mean(dim=0).sqrt().mean(), rank
