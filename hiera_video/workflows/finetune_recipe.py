"""Recipe of `finetune`: keys chosen by the size of the data set and the weights. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from hiera_video.models.layout import HieraConfig, block_table
from hiera_video.utils.text_files import count_of

Weights = Literal["none", "encoder", "classifier"]
"""No weights, those of masked pre-training, or those of a classifier."""

HELD_OUT = 0.15
"""Share of the videos in the test part, and at most in the validation part."""
MIN_CLASS, MIN_VALIDATION = 10, 50
"""Videos a class, and validation videos in all, below which none are held out to choose a
checkpoint: they are too few to choose by, and too many to miss. The best
checkpoint of 24 videos was 4.7 points worse than the last (docs/finetuning.md)."""
CLASS_VALIDATION, LARGE_VALIDATION = 2, 0.05
"""Validation videos a class, and their share of a large set."""
HEAD_ALONE, HALF_FROZEN, STRONG_DECAY = 10, 50, 500
"""Training videos a class up to which a classifier's weights are trained in the head alone, above
the first two stages, or with a strong layer decay."""
UNBALANCED = 3.0
"""Ratio of the largest to the smallest class above which classes are sampled equally."""
EPOCHS, MIN_STEPS, MAX_STEPS = 40, 200, 6000
VALIDATIONS, PATIENCE = 20, 10
"""Validations of a training, and those without a better one that end it: half of them, as early
scores on a few videos are noise, and the last steps have the lowest learning rates."""
MARGIN = 1.0
"""Standard errors below the highest score within which a later checkpoint is the best. Of 20
validations on 96 videos, the highest was 3.4 points worse on the test than the last
(docs/finetuning.md)."""
SMALL_DEPTH = 8
"""Blocks up to which a model is trained with the learning rates of the micro model, and with its
augmentation from scratch."""
BYTES_PER_TOKEN_CHANNEL = 84
"""Memory of a block's activations in float32 training: about 14 tensors of its size, and half as
much again for gradients and buffers."""


@dataclass(frozen=True, kw_only=True)
class SetFacts:
    """What a recipe depends on."""

    videos: int
    """Training videos."""
    class_sizes: tuple[int, ...]
    """Training videos of each class that has any."""
    named: bool
    """Classes have names, which tell whether mirrored videos keep their labels."""
    multi_label: bool
    validated: bool
    """There are validation videos."""

    @property
    def typical(self) -> int:
        """Training videos of the middle class."""
        return sorted(self.class_sizes)[len(self.class_sizes) // 2]


@dataclass(frozen=True, kw_only=True)
class Device:
    """The device that trains."""

    is_gpu: bool
    memory_bytes: int


@dataclass(frozen=True)
class Recipe:
    """Chosen keys, and one line on each choice."""

    keys: dict[str, dict[str, Any]]
    """Section → key → value."""
    reasons: tuple[tuple[str, str], ...]
    """Subject and explanation, in the order of the plan."""


def choose_recipe(
    facts: SetFacts,
    weights: Weights,
    model: HieraConfig,
    device: Device,
    *,
    batch: int | None = None,
    epochs: int | None = None,
) -> Recipe:
    """Return the recipe for a data set.

    Args:
        facts: The training videos.
        weights: What the model starts from.
        model: The architecture.
        device: Where it is trained.
        batch: The user's batch size; None: chosen.
        epochs: The user's number of epochs; None: chosen.
    """
    batch = batch or choose_batch(facts.videos, 32 if device.is_gpu else 16)
    steps_per_epoch = max(facts.videos // batch, 1)
    if epochs is None:
        steps = min(max(EPOCHS * steps_per_epoch, MIN_STEPS), MAX_STEPS)
        epochs = max(math.ceil(steps / steps_per_epoch), 5)
    steps = epochs * steps_per_epoch
    every = max(epochs // VALIDATIONS, 1)
    optim, train, how = _choose_layers(facts.typical, weights, model)
    optim |= {"lr_for_batch": 16, "warmup_epochs": round(0.1 * epochs, 2), "clip_grad": 1.0}
    train |= {"batch_size": batch, "epochs": epochs}
    train |= {"eval_every": every, "save_every": every}
    train["ema"] = round(min(max(1 - 20 / steps, 0.9), 0.9999), 4)
    reasons = [
        ("weights", how),
        (
            "length",
            f"{count_of(epochs, 'epoch')} of {count_of(steps_per_epoch, 'step')} with "
            f"{count_of(batch, 'video')}; the mean of the last "
            f"{round(1 / (1 - train['ema']))} steps' weights is kept",
        ),
    ]
    if facts.validated:
        train |= {"early_stop": PATIENCE, "best_margin": MARGIN}
        reasons.append(
            (
                "stop",
                f"after {PATIENCE} validations below the best by more than chance, each "
                f"{count_of(every, 'epoch')} apart; the latest that is not is kept",
            )
        )
    else:
        reasons.append(
            ("stop", "at the end: of so few videos, none are held out to choose a checkpoint")
        )
    if max(facts.class_sizes) > UNBALANCED * min(facts.class_sizes):
        key = "weighted_loss" if facts.multi_label else "balanced_sampling"
        train[key] = True
        low, high = min(facts.class_sizes), max(facts.class_sizes)
        reasons.append(("classes", f"{low} to {high} videos each: train.{key}"))
    memory, text = _fit_memory(batch, model, device)
    reasons += [("memory", text)] if text else []
    augment: dict[str, Any] = {"scale": [0.5, 1.0], "color_jitter": 0.4, "label_smoothing": 0.1}
    if weights == "none" and _is_small(model):
        augment = {"scale": [0.7, 1.0], "color_jitter": 0.0, "label_smoothing": 0.0}
        reasons.append(("clips", "little augmentation: with more, a small model learns too late"))
    augment["flip"] = 0.5 if facts.named else 0.0
    keys = {"augment": augment, "optim": optim, "train": train | memory}
    return Recipe(keys, tuple(reasons))


def validation_share(videos: int, typical: int, classes: int) -> float:
    """Return the share of the videos that is held out to choose a checkpoint.

    Args:
        videos: Videos of all classes.
        typical: Videos of the middle class.
        classes: Number of classes.

    >>> [validation_share(*sizes) for sizes in ((160, 20, 8), (333, 20, 17), (2000, 9, 222))]
    [0.0, 0.0, 0.0]
    >>> [validation_share(*sizes) for sizes in ((400, 20, 20), (500, 250, 2), (5000, 250, 20))]
    [0.125, 0.1, 0.05]
    """
    if typical < MIN_CLASS or videos * HELD_OUT < MIN_VALIDATION:
        return 0.0
    wanted = max(MIN_VALIDATION, CLASS_VALIDATION * classes, LARGE_VALIDATION * videos)
    return min(wanted / videos, HELD_OUT)


def choose_batch(videos: int, limit: int) -> int:
    """Return the batch size up to `limit` that leaves the fewest videos of an epoch over.

    Of several, the largest; at least half of `limit`, where there are so many videos.

    >>> [choose_batch(videos, 16) for videos in (3, 15, 16, 40, 160, 161)]
    [3, 15, 16, 10, 16, 16]
    """
    limit = min(limit, videos)
    sizes = range(limit, limit // 2, -1)
    exact = [size for size in sizes if videos % size <= 0.02 * videos]
    return exact[0] if exact else min(sizes, key=lambda size: videos % size)


def _is_small(model: HieraConfig) -> bool:
    return model.depth <= SMALL_DEPTH


def _choose_layers(
    typical: int, weights: Weights, model: HieraConfig
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return keys of `optim` and `train` that say what is trained, and a line about it."""
    small = _is_small(model)
    full, decayed = (1e-3, 4e-3) if small else (1e-4, 4e-4)
    if weights == "none":
        return {"lr": full}, {}, "none: all layers are trained from scratch"
    if weights == "encoder":
        decay = 0.6 if small else 0.75
        text = f"of masked pre-training: all layers are trained, with layer decay {decay}"
        return {"lr": decayed, "layer_decay": decay}, {}, text
    start = f"of a classifier, {count_of(typical, 'video')} a class: "
    frozen = ["patch_embed", "pos_embed"]
    if typical <= HEAD_ALONE:
        freeze = [*frozen, f"blocks:{model.depth}"]
        return {"lr": 4e-3}, {"freeze": freeze}, f"{start}the head alone is trained"
    if typical <= HALF_FROZEN:
        blocks = sum(model.stages[:2])
        keys = {"lr": decayed / 2, "layer_decay": 0.75}
        text = f"{start}the first two stages are frozen, layer decay 0.75 above them"
        return keys, {"freeze": [*frozen, f"blocks:{blocks}"]}, text
    decay = 0.75 if typical <= STRONG_DECAY else 0.85
    return (
        {"lr": decayed / 2, "layer_decay": decay},
        {},
        f"{start}all layers are trained, with layer decay {decay}",
    )


def _fit_memory(batch: int, model: HieraConfig, device: Device) -> tuple[dict[str, Any], str]:
    """Return keys that divide the batch where it does not fit the memory, and a line about it."""
    if device.is_gpu:
        return {"fit_memory": True}, "the GPU's memory decides about micro-batches"
    clips = max(int(0.5 * device.memory_bytes / clip_bytes(model)), 1)
    parts = next(n for n in range(1, batch + 1) if batch % n == 0 and batch // n <= clips)
    if parts == 1:
        return {}, ""
    return {"accumulate": parts}, f"{parts} micro-batches of {count_of(batch // parts, 'video')}"


def clip_bytes(model: HieraConfig) -> int:
    """Return about how many bytes a clip takes in training, in float32."""
    units = model.num_units
    return sum(
        BYTES_PER_TOKEN_CHANNEL * units * block.unit_tokens_in * block.dim_out
        for block in block_table(model)
    )
