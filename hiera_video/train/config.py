"""The `optim` and `train` sections of the configuration. Imports no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hiera_video.utils.checks import require

FREEZABLE = ("patch_embed", "pos_embed", "norm")
BLOCKS = re.compile(r"blocks:([0-9]{1,4})")


def count_frozen_blocks(freeze: Sequence[str]) -> int:
    """Return the number of first blocks that `train.freeze` names.

    >>> count_frozen_blocks(["patch_embed", "blocks:5"])
    5
    """
    found = (BLOCKS.fullmatch(part) for part in freeze)
    return max((int(match[1]) for match in found if match), default=0)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimizer and learning rate: linear warm-up, then half a cosine, updated at each step."""

    name: Literal["adamw", "sgd"] = "adamw"
    """Optimizer; `sgd` uses Nesterov momentum, as in PySlowFast."""
    lr: float = 8e-4
    """Peak learning rate for the global batch (`train.batch_size` videos); never scaled
    silently."""
    lr_for_batch: int | None = None
    """Batch size that `lr`, `warmup_lr` and `min_lr` are stated for, as in recipes with a base
    learning rate per 256 videos: each is multiplied by `train.batch_size` / `lr_for_batch`. Unset:
    they are used as given."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's two moments; masked pre-training uses 0.95 for the second."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 0.05
    """Decoupled weight decay; not applied to 1-D parameters, biases and position embeddings."""
    layer_decay: float = 1.0
    """Learning rate of each layer relative to the next one's. Patch and position embeddings are the
    first layer, the head is the last; 1 switches it off."""
    lora_rank: int | None = None
    """Rank of low-rank adapters (LoRA) of the attention's `qkv` and `proj`, which are trained with
    the last norm and the head instead of the encoder's weights. Checkpoints hold the merged
    weights, as of a model without adapters. Unset: no adapters."""
    clip_grad: float | None = None
    """Maximum norm of the gradient over all parameters. Unset: no clipping."""
    warmup_epochs: float = 0.0
    """Epochs in which the learning rate rises linearly from `warmup_lr` to `lr`."""
    warmup_lr: float = 0.0
    """Learning rate of the first step of the warm-up."""
    min_lr: float = 1e-6
    """Learning rate at the end of the cosine."""
    cosine_after_warmup: bool = True
    """Start the cosine where the warm-up ends. False: the cosine spans the whole run, and the
    warm-up ends a little below `lr`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))  # YAML gives a list
        require(0 < self.lr < math.inf, f"optim.lr={self.lr}: must be above 0")
        require(
            all(0 <= beta < 1 for beta in self.betas),
            f"optim.betas={list(self.betas)}: must be in [0, 1)",
        )
        require(0 <= self.momentum < 1, f"optim.momentum={self.momentum}: must be in [0, 1)")
        require(
            self.weight_decay >= 0, f"optim.weight_decay={self.weight_decay}: must be 0 or more"
        )
        require(
            0 < self.layer_decay <= 1,
            f"optim.layer_decay={self.layer_decay}: must be in (0, 1]; 1 switches it off",
        )
        require(
            self.lora_rank is None or self.lora_rank >= 1,
            f"optim.lora_rank={self.lora_rank}: must be 1 or more, or null for no adapters",
        )
        require(
            self.clip_grad is None or self.clip_grad > 0,
            f"optim.clip_grad={self.clip_grad}: must be above 0, or null for no clipping",
        )
        require(
            self.lr_for_batch is None or self.lr_for_batch >= 1,
            f"optim.lr_for_batch={self.lr_for_batch}: must be 1 or more, or null to use the rates "
            "as given",
        )
        require(
            self.warmup_epochs >= 0, f"optim.warmup_epochs={self.warmup_epochs}: must be 0 or more"
        )
        for name in ("warmup_lr", "min_lr"):
            value = getattr(self, name)
            require(
                0 <= value <= self.lr,
                f"optim.{name}={value}: must be between 0 and optim.lr={self.lr}",
            )

    def for_batch(self, batch_size: int) -> OptimConfig:
        """Return the config with the learning rates for a batch of `batch_size` videos.

        >>> OptimConfig(lr=1e-3, min_lr=0, lr_for_batch=256).for_batch(64).lr
        0.00025
        """
        if self.lr_for_batch is None:
            return self
        share = batch_size / self.lr_for_batch
        rates = {name: getattr(self, name) * share for name in ("lr", "warmup_lr", "min_lr")}
        return replace(self, lr_for_batch=None, **rates)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Length, batch size, precision, devices, logging and checkpoints of a training."""

    task: Literal["classify", "pretrain", "probe", "detect"] = "classify"
    """`classify` (needs labels), `pretrain` (masked pre-training of `mae_…` models, no labels),
    `detect` (actions in boxes, see section `detect`), or `probe` (probes on frozen features, see
    section `probe`; other keys of `train` and `optim` are then ignored)."""
    epochs: int = 100
    """Epochs over the list of videos. The paper's effective epochs are these times
    `clip.repeats`."""
    batch_size: int = 256
    """Videos per optimizer step, over all devices and micro-batches; each gives `clip.repeats`
    clips."""
    accumulate: int = 1
    """Micro-batches per device and step (gradient accumulation); more of them need less memory."""
    fit_memory: bool = False
    """Choose `accumulate` at the start by the GPU's memory; `batch_size` stays. Same as
    `train.batch_size=auto` and `train.accumulate=auto`."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Mixed precision; `auto` is bf16 on a GPU that supports it, else fp32."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """On several devices: a full copy of the model on each (`ddp`), or weights, gradients and
    optimizer state sharded (`fsdp`), for a model that does not fit one device. Results are the
    same."""
    static_graph: bool = False
    """Let DDP assume that every step uses the same parameters in the same order; for `classify`
    without gradient accumulation."""
    checkpoint: Literal["full", "sharded"] = "full"
    """`full` checkpoints in one file, or `sharded` ones, a shard from each process, for a model
    whose full copy does not fit one machine's memory. Any number of processes and all tools read
    both."""
    compile: bool | None = None
    """Compile each transformer block (`torch.compile`), which takes minutes at the start. Unset: on
    a GPU, for runs of 1000 steps or more that are not `deterministic`."""
    cuda_graph: bool = False
    """Launch the forward and backward pass of masked pre-training as one CUDA graph, for a step in
    which the host launches kernels more slowly than the GPU runs them, as with small micro-batches.
    For a single GPU; without effect on a CPU. The graph keeps its memory, which validation cannot
    use."""
    deterministic: bool = False
    """Use deterministic kernels only; slower on a GPU."""
    freeze: tuple[str, ...] = ()
    """Parts of the encoder that keep their weights: `patch_embed`, `pos_embed`, `blocks:N` (the
    first N blocks) and `norm` (the last, before the head). The parts before the first trained one
    need no backward pass."""
    early_stop: int | None = None
    """Stop after this many validations in a row without a better score; the best checkpoint stays
    the one that is tested and loaded. Unset: train all epochs."""
    best_margin: float = 0.0
    """Also take a later checkpoint for the best if its score is at most this many standard errors
    below the highest: so small a difference between few validation videos is chance, and later
    weights have seen more. 0: the highest score alone counts."""
    balanced_sampling: bool = False
    """Draw the same number of samples from every class in each epoch, for lists with rare classes;
    `mean_class` then chooses the best checkpoint."""
    weighted_loss: bool = False
    """Weight each class in the loss by its inverse frequency (multi-label: weight positives by the
    ratio of negatives to positives)."""
    max_loss: float | None = None
    """Stop the run before its weights change if a step's mean loss exceeds this, as for a
    non-finite loss. Unset: no limit."""
    ema: float | None = None
    """Decay per step of an exponential moving average of the weights, for example 0.9999. The
    averaged weights are validated, compared for the best checkpoint, and loaded from the run.
    Unset: none."""
    eval_every: int = 1
    """Epochs between validations; the last epoch is always validated."""
    log_every: int = 10
    """Steps between rows of `metrics.jsonl`."""
    logger: str | None = None
    """Python module that receives all logged numbers, besides `metrics.jsonl` and TensorBoard: any
    with wandb's `init`, `log` and `finish` (wandb, swanlab, trackio). It is configured by its own
    environment variables and log-in."""
    save_minutes: float = 10.0
    """Maximum minutes between checkpoints; one is also written at the end of every epoch, see
    `save_every`."""
    save_every: int = 1
    """Epochs between the checkpoints at ends of epochs, for lists of a few videos; a validated
    epoch and the last one always end with one."""
    keep: int = 2
    """Number of newest checkpoints to keep, besides the best."""
    allow_changed_lists: bool = False
    """Resume on lists that differ from those of the last checkpoint in videos, labels, order or
    class names. Unset: that is an error."""
    keep_every: int | None = None
    """Epochs between checkpoints that are kept permanently, as `checkpoints/pass_00200`. Unset:
    none."""

    def __post_init__(self) -> None:
        counts = ("epochs", "batch_size", "accumulate", "eval_every", "log_every", "keep")
        for name in (*counts, "save_every"):
            value = getattr(self, name)
            require(value >= 1, f"train.{name}={value}: must be 1 or more")
        require(
            self.keep_every is None or self.keep_every >= 1,
            f"train.keep_every={self.keep_every}: must be 1 or more, or null to keep none",
        )
        object.__setattr__(self, "freeze", tuple(self.freeze))  # YAML gives a list
        unknown = [p for p in self.freeze if p not in FREEZABLE and not BLOCKS.fullmatch(p)]
        require(
            not unknown,
            f"train.freeze={list(self.freeze)}: unknown {', '.join(unknown)}; choose from "
            f"{', '.join(FREEZABLE)} and blocks:N, the first N blocks",
        )
        require(
            not self.freeze or self.task != "pretrain",
            f"train.freeze={list(self.freeze)}: goes with train.task=classify or detect, not "
            "pretrain; remove one of them",
        )
        require(
            self.early_stop is None or self.early_stop >= 1,
            f"train.early_stop={self.early_stop}: must be 1 or more, or null to train all epochs",
        )
        require(
            0 <= self.best_margin < math.inf and (not self.best_margin or self.task != "pretrain"),
            f"train.best_margin={self.best_margin}: must be 0 or more, and 0 for "
            "train.task=pretrain, whose score is a loss",
        )
        require(
            self.ema is None or 0 < self.ema < 1,
            f"train.ema={self.ema}: must be in (0, 1), or null for no average",
        )
        require(
            self.max_loss is None or self.max_loss > 0,
            f"train.max_loss={self.max_loss}: must be above 0, or null for no limit",
        )
        require(
            not self.static_graph or (self.parallel == "ddp" and self.accumulate == 1),
            f"train.static_graph=true: needs train.parallel=ddp and train.accumulate=1 (now "
            f"{self.parallel}, {self.accumulate}), because with accumulation torch's static graph "
            "fails or skips gradient synchronisation (pytorch#143580, #187732); set "
            "train.static_graph=false",
        )
        require(
            not self.cuda_graph or self.task == "pretrain",
            f"train.cuda_graph=true: needs train.task=pretrain, and it is {self.task}; set "
            "train.cuda_graph=false",
        )
        require(self.save_minutes > 0, f"train.save_minutes={self.save_minutes}: must be above 0")
