"""The `optim` and `train` sections of the configuration. No torch, so that a wrong value is told at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from hiera_video.utils.checks import require


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimizer and learning rate: linear warm-up, then half a cosine, both by step."""

    name: Literal["adamw", "sgd"] = "adamw"
    """Optimizer; `sgd` with Nesterov's momentum, as in PySlowFast."""
    lr: float = 8e-4
    """Peak learning rate, for the whole batch of a step (`train.batch_size` videos); never scaled silently."""
    lr_for_batch: int | None = None
    """Batch that `lr`, `warmup_lr` and `min_lr` are stated for: each is used × `train.batch_size` / this, as recipes that
    give a base rate per 256 videos mean it. Unset: they are used as they are."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates; 0.95 for the second in masked pre-training."""
    momentum: float = 0.9
    """SGD's momentum."""
    weight_decay: float = 0.05
    """Decoupled decay; not applied to 1-D parameters, biases and position embeddings."""
    layer_decay: float = 1.0
    """Each layer's rate is this times the next one's; patch and position embedding are the first layer, the head the last."""
    clip_grad: float | None = None
    """Largest norm of the gradient over all parameters; unset: no clipping."""
    warmup_epochs: float = 0.0
    """Passes over which the rate grows linearly from `warmup_lr` to `lr`."""
    warmup_lr: float = 0.0
    """Rate of the first step."""
    min_lr: float = 1e-6
    """Rate at the end of the cosine."""
    cosine_after_warmup: bool = True
    """The cosine begins where the warm-up ends; false: with the run, and the warm-up ends a little below `lr`."""

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
            self.clip_grad is None or self.clip_grad > 0,
            f"optim.clip_grad={self.clip_grad}: must be above 0, or null for no clipping",
        )
        require(
            self.lr_for_batch is None or self.lr_for_batch >= 1,
            f"optim.lr_for_batch={self.lr_for_batch}: must be 1 or more, or null for rates used as they are",
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
        """With the rates of a step of `batch_size` videos, by `lr_for_batch`.

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
    """How long, how much at once, how often to look."""

    task: Literal["classify", "pretrain", "probe"] = "classify"
    """What is learnt: classes (needs labels), hidden units by masked pre-training (`mae_…` models, no labels), or what
    frozen features tell of the classes (section `probe`; the other keys of `train` and `optim` have no say then)."""
    epochs: int = 100
    """Passes over the videos. The paper's epochs are these times `clip.repeats`."""
    batch_size: int = 256
    """Videos an optimizer step, over all devices and accumulated parts together; each gives `clip.repeats` clips."""
    accumulate: int = 1
    """Parts that each device's share of a batch is computed in, to save memory."""
    fit_memory: bool = False
    """Choose `accumulate` at the start, so that the memory at hand is used and `batch_size` stays. Other spellings:
    `train.batch_size=auto`, `train.accumulate=auto`."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Autocast of forward and backward; `auto` is bf16 on a GPU that has it, else fp32."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Several devices: each holds the whole model (`ddp`), or a share of weights, gradients and optimizer state (`fsdp`)
    for a model that does not fit one. The numbers are the same."""
    static_graph: bool = False
    """Tell DDP that every step uses the same parameters in the same order; for `classify`, without accumulation."""
    checkpoint: Literal["full", "sharded"] = "full"
    """Checkpoints in one file, or one part from each process where a whole copy does not fit one machine's memory. Runs of
    any number of processes, either kind of `parallel`, and all tools read both."""
    compile: bool = False
    """Compile each transformer block (`torch.compile`): minutes at the start, faster steps on a GPU."""
    deterministic: bool = False
    """Only kernels that give the same bits each time; slower on a GPU."""
    balanced_sampling: bool = False
    """In each pass every class gives the same number of samples; for lists in which some classes are rare."""
    weighted_loss: bool = False
    """Weigh each class in the loss by the inverse of its frequency (positives by negatives, for several labels a video)."""
    max_loss: float | None = None
    """A mean loss of a step above this stops the run before its weights change, as one that is not finite does."""
    ema: float | None = None
    """Decay of the moving average of the weights, by step (0.9999); the average is then what is validated, kept as best
    and loaded from the run. Unset: no average."""
    eval_every: int = 1
    """Passes between two validations; the last pass is always validated."""
    log_every: int = 10
    """Steps between two rows of `metrics.jsonl`."""
    logger: str | None = None
    """Module that gets every logged number too, beside `metrics.jsonl` and TensorBoard: any with wandb's `init`, `log` and
    `finish` (wandb, swanlab, trackio). Its own environment variables and log-in hold."""
    save_minutes: float = 10.0
    """Longest time between two checkpoints; one is written after every validation too."""
    keep: int = 2
    """Newest checkpoints that are kept, beside the best."""
    keep_every: int | None = None
    """Passes between checkpoints that are kept for good, as `checkpoints/pass_00200`; unset: none are."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "eval_every", "log_every", "keep"):
            value = getattr(self, name)
            require(value >= 1, f"train.{name}={value}: must be 1 or more")
        require(
            self.keep_every is None or self.keep_every >= 1,
            f"train.keep_every={self.keep_every}: must be 1 or more, or null to keep none for good",
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
            f"train.static_graph=true: is for train.parallel=ddp with train.accumulate=1 (now {self.parallel}, "
            f"{self.accumulate}): accumulating, torch's static graph fails or leaves gradients unexchanged "
            "(pytorch#143580, #187732); set train.static_graph=false",
        )
        require(self.save_minutes > 0, f"train.save_minutes={self.save_minutes}: must be above 0")
