"""Probes on frozen features: k nearest neighbours, a linear layer, and an attentive query.

    training videos ─▶ folds ─▶ all settings ─▶ the best one, trained on all of them ─▶ test videos

Settings are chosen on the training videos alone: `choose_setting` gets neither the features nor the
labels of the test videos.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hiera_video.errors import ManifestError
from hiera_video.probe.config import Kind, ProbeConfig

QUERIES_PER_PRODUCT = 256
"""Videos that are compared with all training videos in one matrix product."""


@dataclass(frozen=True, kw_only=True)
class LabelledFeatures:
    """Frozen features of N videos: V views of L tokens (1 if they are averaged) of C channels."""

    features: Tensor
    """float32 [N, V, L, C]."""
    labels: Tensor
    """int64 [N]."""

    def __getitem__(self, chosen: Tensor) -> LabelledFeatures:
        return LabelledFeatures(features=self.features[chosen], labels=self.labels[chosen])

    def standardise(self, by: LabelledFeatures) -> LabelledFeatures:
        """Subtract the mean and divide by the standard deviation that each channel has in `by`."""
        deviation, mean = torch.std_mean(by.features.flatten(0, 2), dim=0, correction=0)
        return replace(self, features=(self.features - mean) / deviation.clamp(min=1e-6))


@dataclass(frozen=True, kw_only=True)
class KnnSetting:
    """A setting of `knn`."""

    neighbours: int
    temperature: float


@dataclass(frozen=True, kw_only=True)
class HeadSetting:
    """A setting of `linear` and `attentive`."""

    lr: float
    weight_decay: float


Setting = KnnSetting | HeadSetting


class Probe(Protocol):
    """Trains on `train` with a setting and returns probabilities [N, K] for other videos."""

    def __call__(self, train: LabelledFeatures, test: LabelledFeatures, setting: Any) -> Tensor: ...


def run_probe(
    kind: Kind,
    train: LabelledFeatures,
    test: LabelledFeatures,
    config: ProbeConfig,
    *,
    num_classes: int,
    seed: int,
) -> tuple[Tensor, Setting, list[dict[str, float]]]:
    """Choose a setting on the training videos, train the probe and apply it to the test videos.

    Args:
        kind: The probe.
        train: Training videos.
        test: Test videos; their labels are not used.
        config: Settings to try, folds, epochs and batch size.
        num_classes: Number of classes K.
        seed: Seed of the folds, of initial weights and of the order of samples.

    Returns:
        Probabilities [N, K] of the test videos, the chosen setting, and one row per setting tried
        with its `accuracy` on the folds in percent.

    Raises:
        ManifestError: There are fewer training videos than folds.
    """
    probe = _make_probe(kind, config, num_classes, seed)
    setting, sweep = choose_setting(
        probe, settings_of(kind, config), train, folds=config.folds, seed=seed
    )
    return probe(train, test, setting), setting, sweep


def settings_of(kind: Kind, config: ProbeConfig) -> list[Setting]:
    """Return all settings to try, in the order of the configuration."""
    if kind == "knn":
        return [
            KnnSetting(neighbours=count, temperature=temperature)
            for count, temperature in itertools.product(config.neighbours, config.temperatures)
        ]
    return [
        HeadSetting(lr=lr, weight_decay=decay)
        for lr, decay in itertools.product(config.lrs, config.weight_decays)
    ]


def choose_setting(
    probe: Probe, candidates: list[Setting], train: LabelledFeatures, *, folds: int, seed: int
) -> tuple[Setting, list[dict[str, float]]]:
    """Choose a setting by cross-validation; among equals, the first.

    Returns:
        The setting, and one row per candidate with its `accuracy` in percent.
    """
    parts = split_folds(train.labels, folds, seed)
    sweep = []
    for setting in candidates:
        correct = 0
        for held_out in parts:
            rest = torch.ones(len(train.labels), dtype=torch.bool)
            rest[held_out] = False
            answers = probe(train[rest], train[held_out], setting).argmax(dim=1)
            correct += int((answers == train.labels[held_out]).sum())
        sweep.append({**asdict(setting), "accuracy": 100 * correct / len(train.labels)})
    best = max(range(len(candidates)), key=lambda index: (sweep[index]["accuracy"], -index))
    return candidates[best], sweep


def split_folds(labels: Tensor, folds: int, seed: int) -> list[Tensor]:
    """Split videos into folds that share every class evenly.

    Returns:
        Ascending indices of each fold, on the CPU.

    Raises:
        ManifestError: There are fewer videos than folds.

    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> [labels[fold].tolist() for fold in split_folds(labels, folds=2, seed=0)]
    [[0, 1], [0, 1]]
    """
    if len(labels) < folds:
        raise ManifestError(
            f"{len(labels)} training videos cannot be split into probe.folds={folds}; lower it or "
            "add videos"
        )
    # on the CPU, wherever the labels are, so that every device gets the same folds
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = order[labels.cpu()[order].argsort(stable=True)]
    return [order[fold::folds].sort().values for fold in range(folds)]


def _make_probe(kind: Kind, config: ProbeConfig, num_classes: int, seed: int) -> Probe:
    if kind == "knn":
        return _KnnProbe(num_classes)
    head = LinearHead if kind == "linear" else AttentiveHead
    return _HeadProbe(head, config, num_classes, seed)


@dataclass(frozen=True)
class _KnnProbe:
    num_classes: int

    def __call__(
        self, train: LabelledFeatures, test: LabelledFeatures, setting: KnnSetting
    ) -> Tensor:
        """Vote by cosine similarity; a video is the mean of its views and tokens."""
        known, queries = (
            nn.functional.normalize(part.standardise(train).features.mean(dim=(1, 2)), dim=1)
            for part in (train, test)
        )
        count = min(setting.neighbours, len(known))
        votes = nn.functional.one_hot(train.labels, self.num_classes).float()
        probabilities = []
        for some in torch.split(queries, QUERIES_PER_PRODUCT):
            nearest = (some @ known.T).topk(count, dim=1)
            weights = (nearest.values / setting.temperature).softmax(dim=1)
            probabilities.append((weights[:, :, None] * votes[nearest.indices]).sum(dim=1))
        return torch.cat(probabilities)


class LinearHead(nn.Module):
    """Linear layer on the mean token: tokens [B, L, C] → logits [B, K]."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.projection = nn.Linear(dim, num_classes)
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits [B, K]."""
        logits: Tensor = self.projection(tokens.mean(dim=1))
        return logits


class AttentiveHead(nn.Module):
    """Linear layer on what one learned query attends to: tokens [B, L, C] → logits [B, K].

    V-JEPA is probed in this way (arXiv:2404.08471).
    """

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        heads = max(dim // 64, 1)
        self.query = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.norm = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(
            dim, heads if dim % heads == 0 else 1, batch_first=True
        )
        self.head = LinearHead(dim, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits [B, K]."""
        tokens = self.norm(tokens)
        query = self.query.expand(len(tokens), -1, -1)
        pooled, _ = self.attention(query, tokens, tokens, need_weights=False)
        logits: Tensor = self.head(pooled)
        return logits


@dataclass(frozen=True)
class _HeadProbe:
    make: Callable[[int, int], nn.Module]
    config: ProbeConfig
    num_classes: int
    seed: int

    def __call__(
        self, train: LabelledFeatures, test: LabelledFeatures, setting: HeadSetting
    ) -> Tensor:
        """Train a head on all views; average the probabilities of a test video's views."""
        head = self._train(train.standardise(train), setting).eval()
        views, size = test.standardise(train).features, self.config.batch_size
        with torch.inference_mode():
            parts = [head(some).softmax(dim=1) for some in torch.split(views.flatten(0, 1), size)]
        return torch.cat(parts).view(*views.shape[:2], -1).mean(dim=1)

    def _train(self, train: LabelledFeatures, setting: HeadSetting) -> nn.Module:
        views = train.features.flatten(0, 1)
        labels = train.labels.repeat_interleave(train.features.shape[1])
        generator = torch.Generator().manual_seed(self.seed)
        # weights are drawn on the CPU, so the state of the GPUs need not be saved
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(self.seed)
            head = self.make(views.shape[2], self.num_classes).to(views.device)
        groups = [
            {"params": [weight], "weight_decay": setting.weight_decay if weight.ndim > 1 else 0.0}
            for weight in head.parameters()
        ]
        optimizer = torch.optim.AdamW(groups, lr=setting.lr)
        size = self.config.batch_size
        steps = self.config.epochs * math.ceil(len(views) / size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(self.config.epochs):
            for batch in torch.split(torch.randperm(len(views), generator=generator), size):
                loss = nn.functional.cross_entropy(head(views[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
        return head
