"""What frozen features tell of the classes: k nearest neighbours, a linear layer, an attentive query.

    train ─▶ folds ─▶ every setting of the sweep ─▶ the best ─▶ fitted to all of train ─▶ one answer for each test video

The settings are chosen on the training videos alone: `choose` is not given the test's features, nor its labels.
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

QUERIES_AT_ONCE = 256
"""Videos compared with all training videos at once."""


@dataclass(frozen=True, kw_only=True)
class Videos:
    """Frozen features of videos: V views of L tokens (1 where they were averaged) of C channels."""

    features: Tensor
    """float32 [N, V, L, C]."""
    labels: Tensor
    """int64 [N]."""

    def __getitem__(self, chosen: Tensor) -> Videos:
        return Videos(features=self.features[chosen], labels=self.labels[chosen])

    def standardised(self, of: Videos) -> Videos:
        """Each channel with the mean and deviation that it has in `of`, taken away and divided by."""
        deviation, mean = torch.std_mean(of.features.flatten(0, 2), dim=0, correction=0)
        return replace(self, features=(self.features - mean) / deviation.clamp(min=1e-6))


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """A setting of `knn`."""

    neighbours: int
    temperature: float


@dataclass(frozen=True, kw_only=True)
class Descent:
    """A setting of `linear` and `attentive`."""

    lr: float
    weight_decay: float


Setting = Neighbours | Descent


class Probe(Protocol):
    """Fits `train` with a setting and answers for other videos: probabilities [N, K]."""

    def __call__(self, train: Videos, test: Videos, setting: Any) -> Tensor: ...


def run_probe(
    kind: Kind, train: Videos, test: Videos, config: ProbeConfig, *, num_classes: int, seed: int
) -> tuple[Tensor, Setting, list[dict[str, float]]]:
    """Probabilities [N, K] of the test videos, the setting that was chosen, and the sweep: a row a setting with its
    `accuracy` on the folds in percent. Raises `ManifestError` where the training videos are too few for the folds."""
    probe = _probe(kind, config, num_classes, seed)
    setting, sweep = choose(probe, settings(kind, config), train, folds=config.folds, seed=seed)
    return probe(train, test, setting), setting, sweep


def settings(kind: Kind, config: ProbeConfig) -> list[Setting]:
    """All that the sweep tries, in the order of the configuration."""
    if kind == "knn":
        pairs = itertools.product(config.neighbours, config.temperatures)
        return [
            Neighbours(neighbours=count, temperature=temperature) for count, temperature in pairs
        ]
    return [
        Descent(lr=lr, weight_decay=decay)
        for lr, decay in itertools.product(config.lrs, config.weight_decays)
    ]


def choose(
    probe: Probe, candidates: list[Setting], train: Videos, *, folds: int, seed: int
) -> tuple[Setting, list[dict[str, float]]]:
    """The setting that is right most often over the folds of `train` (the first of equals), and what each reached."""
    parts = split(train.labels, folds, seed)
    sweep = []
    for setting in candidates:
        right = 0
        for held in parts:
            rest = torch.ones(len(train.labels), dtype=torch.bool)
            rest[held] = False
            answers = probe(train[rest], train[held], setting).argmax(dim=1)
            right += int((answers == train.labels[held]).sum())
        sweep.append({**asdict(setting), "accuracy": 100 * right / len(train.labels)})
    best = max(range(len(candidates)), key=lambda place: (sweep[place]["accuracy"], -place))
    return candidates[best], sweep


def split(labels: Tensor, folds: int, seed: int) -> list[Tensor]:
    """Indices of each fold; every class is dealt out evenly. `split(tensor([0, 0, 1, 1]), 2, 0)`: one of each in both."""
    if len(labels) < folds:
        raise ManifestError(
            f"{len(labels)} training videos cannot be cut into probe.folds={folds} parts; lower it or add videos"
        )
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    # on the CPU, wherever the labels are: there the draw is the same everywhere, and its indices serve every device
    order = order[labels.cpu()[order].argsort(stable=True)]
    return [order[fold::folds].sort().values for fold in range(folds)]


def _probe(kind: Kind, config: ProbeConfig, num_classes: int, seed: int) -> Probe:
    if kind == "knn":
        return _Knn(num_classes)
    make = LinearHead if kind == "linear" else AttentiveHead
    return _Descended(make, config, num_classes, seed)


@dataclass(frozen=True)
class _Knn:
    num_classes: int

    def __call__(self, train: Videos, test: Videos, setting: Neighbours) -> Tensor:
        """Weighted votes; a video is the mean of its views and tokens, compared by the cosine."""
        known, asked = (
            nn.functional.normalize(_pooled(part.standardised(train)), dim=1)
            for part in (train, test)
        )
        count = min(setting.neighbours, len(known))
        votes = nn.functional.one_hot(train.labels, self.num_classes).float()
        answers = []
        for some in torch.split(asked, QUERIES_AT_ONCE):
            nearest = (some @ known.T).topk(count, dim=1)
            weights = (nearest.values / setting.temperature).softmax(dim=1)
            answers.append((weights[:, :, None] * votes[nearest.indices]).sum(dim=1))
        return torch.cat(answers)


def _pooled(videos: Videos) -> Tensor:
    return videos.features.mean(dim=(1, 2))


class LinearHead(nn.Module):
    """Tokens [B, L, C] → logits [B, K] from their mean."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.projection = nn.Linear(dim, num_classes)
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.projection(tokens.mean(dim=1))
        return logits


class AttentiveHead(nn.Module):
    """Tokens [B, L, C] → logits [B, K] from what one learned query sees in them (as V-JEPA is probed, arXiv:2404.08471)."""

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
        """Logits."""
        tokens = self.norm(tokens)
        seen, _ = self.attention(
            self.query.expand(len(tokens), -1, -1), tokens, tokens, need_weights=False
        )
        logits: Tensor = self.head(seen)
        return logits


@dataclass(frozen=True)
class _Descended:
    make: Callable[[int, int], nn.Module]
    config: ProbeConfig
    num_classes: int
    seed: int

    def __call__(self, train: Videos, test: Videos, setting: Descent) -> Tensor:
        """A head trained on every view; the answer is the mean of the views' probabilities."""
        head = self._fitted(train.standardised(train), setting).eval()
        views, size = test.standardised(train).features, self.config.batch_size
        with torch.inference_mode():
            shares = [head(some).softmax(dim=1) for some in torch.split(views.flatten(0, 1), size)]
        return torch.cat(shares).view(*views.shape[:2], -1).mean(dim=1)

    def _fitted(self, train: Videos, setting: Descent) -> nn.Module:
        views = train.features.flatten(0, 1)
        labels = train.labels.repeat_interleave(train.features.shape[1])
        draws = torch.Generator().manual_seed(self.seed)
        with torch.random.fork_rng(
            devices=()
        ):  # weights are drawn on the CPU: no GPU need be asked for its state
            torch.default_generator.manual_seed(self.seed)
            head = self.make(views.shape[2], self.num_classes).to(views.device)
        decays = [{"params": [weight]} if weight.ndim > 1 else {"params": [weight], "weight_decay": 0.0}
                  for weight in head.parameters()]  # fmt: skip
        optimizer = torch.optim.AdamW(decays, lr=setting.lr, weight_decay=setting.weight_decay)
        steps = self.config.epochs * math.ceil(len(views) / self.config.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(self.config.epochs):
            for batch in torch.split(
                torch.randperm(len(views), generator=draws), self.config.batch_size
            ):
                loss = nn.functional.cross_entropy(head(views[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
        return head
