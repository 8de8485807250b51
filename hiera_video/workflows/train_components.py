"""Parts of a training run, built from a `Config`: trainer, data, task, evaluator."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hiera_video.config.load import flatten_config
from hiera_video.config.schema import Config
from hiera_video.data.dataset import TrainClips
from hiera_video.data.detection.dataset import BoxBatchLoader, TrainKeyFrames
from hiera_video.data.detection.key_frame import BoxManifest
from hiera_video.data.loading.balanced import classes_to_balance
from hiera_video.data.loading.batch_plan import BatchPlan
from hiera_video.data.loading.loader import ClipBatch, train_loader
from hiera_video.data.manifest.record import Manifest
from hiera_video.data.transforms.flip_labels import make_label_flip
from hiera_video.data.transforms.on_device import place_augmentation
from hiera_video.data.transforms.train_eval import TrainTransform
from hiera_video.errors import CheckpointError
from hiera_video.eval.evaluate import Accuracy
from hiera_video.eval.feature_probe import choose_probe_labels
from hiera_video.eval.reconstruct import Reconstruction
from hiera_video.models.compiled import compile_blocks
from hiera_video.models.macs import count_macs, count_parameters
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.runtime.cuda import use_fast_cuda
from hiera_video.runtime.distributed import World
from hiera_video.runtime.log import MetricLog
from hiera_video.runtime.precision import resolve_precision
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.train.config import OptimConfig, TrainConfig
from hiera_video.train.list_digest import list_digest
from hiera_video.train.state import TrainState, make_state
from hiera_video.train.tasks import Classify, Pretrain, Task, class_weights
from hiera_video.train.trainer import Evaluator, RunInfo, Trainer
from hiera_video.utils.text_files import count_of
from hiera_video.workflows import detect
from hiera_video.workflows.build import make_initial_model, make_quarantine_policy, make_views

logger = logging.getLogger(__name__)
CPU = torch.device("cpu")
MAX_UNUSED = 0.05
"""Share of the videos that an epoch may leave over without a warning."""
MAX_INITIAL = 0.05
"""Share of averaged weights that may stem from the first step without a warning."""
MIN_COMPILED_STEPS = 1000
"""Steps from which on compilation gains more time than it takes, where `train.compile` is unset."""


def make_trainer(
    config: Config,
    train: Manifest,
    num_classes: int | None,
    world: World,
    *,
    val: Manifest | None = None,
    task: Task | None = None,
    evaluator: Evaluator | None = None,
    store: CheckpointStore | None = None,
    trainer_class: type[Trainer] = Trainer,
    max_steps: int | None = None,
) -> Trainer:
    """Build the trainer of a run, at the newest checkpoint of `store` or at step 0.

    Args:
        config: The experiment.
        train: Training videos.
        num_classes: Classes of the model; None for pre-training.
        world: The ranks.
        val: Validation videos, whose digest every checkpoint records.
        task: Replaces the task that `train.task` names.
        evaluator: Validation; None for none.
        store: Checkpoints of the run; None for a dry run, which writes no metrics either.
        trainer_class: `Trainer` or a subclass.
        max_steps: Passed to the trainer.
    """
    exact = config.train.deterministic
    exact |= resolve_precision(config.train.precision, world.device) == "fp32"
    use_fast_cuda(world.device, exact=exact)
    names = None if task else train.class_names
    state, macs = _make_state(config, num_classes, world, class_names=names, store=store)
    run = RunInfo(
        world=world,
        steps_per_epoch=make_plan(config, train, world).steps_per_epoch,
        num_videos=len(train.records),
        seed=config.seed,
        max_broken=config.data.max_broken,
        flops_per_clip=6.0 * macs,
        meta=describe(config, train, val, num_classes),
    )
    steps = max_steps or config.train.epochs * run.steps_per_epoch
    if should_compile(config.train, world.device, steps=steps):
        compile_blocks(state.model)
        logger.info("compiling the transformer blocks in the first steps; this takes minutes")
    log = None
    if store and world.is_main:
        log = MetricLog(
            Path(config.out_dir),
            first_step=state.progress.step,
            logger=config.train.logger,
            config=flatten_config(config),
        )
    return trainer_class(
        state,
        task or make_task(config, train, num_classes, state.model),
        optim=config.optim.for_batch(config.train.batch_size),
        train=config.train,
        run=run,
        evaluator=evaluator,
        store=store,
        log=log,
        max_steps=max_steps,
    )


def should_compile(train: TrainConfig, device: torch.device, *, steps: int) -> bool:
    """Return True if the blocks of a run of `steps` steps are to be compiled."""
    if train.compile is not None:
        return train.compile
    return device.type == "cuda" and not train.deterministic and steps >= MIN_COMPILED_STEPS


def _make_state(
    config: Config,
    num_classes: int | None,
    world: World,
    *,
    class_names: tuple[str, ...] | None,
    store: CheckpointStore | None,
) -> tuple[TrainState, int]:
    """Return the state to start from, and the model's multiply-accumulates per clip."""
    checkpoint = store.latest() if store else None
    if store:
        steps = world.all_gather(checkpoint.meta["step"] if checkpoint else 0)
        require_same_step(steps, store.folder)
    torch.manual_seed(config.seed)
    pretrained = config.model.pretrained
    if checkpoint or pretrained == "none":
        pretrained = None
    model = make_initial_model(
        config, num_classes, pretrained=pretrained, class_names=class_names
    ).to(world.device)
    macs = count_macs(model, (3, *config.input_size))  # before the model is sharded
    optim = config.optim.for_batch(config.train.batch_size)
    state = make_state(model, optim, config.train, world)
    if checkpoint:
        state.load(checkpoint)
        logger.info("resuming %s after step %d", config.out_dir, state.progress.step)
    return state, macs


def require_same_step(steps: list[int], checkpoints: Path) -> None:
    """Raise `CheckpointError` if the ranks found checkpoints of different steps."""
    if len(set(steps)) > 1:
        raise CheckpointError(
            f"{checkpoints}: the processes see different checkpoints (steps {steps}); out_dir must "
            "be on a disk that all machines share"
        )


def make_loader(
    config: Config,
    train: Manifest,
    num_classes: int | None,
    trainer: Trainer,
    *,
    need_labels: bool,
) -> Iterator[list[ClipBatch]]:
    """Return the loader of the steps that `trainer` has left.

    Args:
        config: The experiment.
        train: Training videos.
        num_classes: Classes of the model; None for pre-training.
        trainer: The trainer.
        need_labels: Refuse videos without labels.
    """
    device = trainer.run.world.device
    clips = make_clips(config, train, num_classes, need_labels=need_labels, device=device)
    if trainer.store is None:  # a dry run writes no quarantine list
        clips.quarantine = replace(clips.quarantine, file=None)
    return train_loader(
        clips,
        make_plan(config, train, trainer.run.world),
        first_step=trainer.progress.step,
        last_step=trainer.last_step,
        workers=config.data.workers,
        batches=BoxBatchLoader if isinstance(clips, TrainKeyFrames) else None,
    )


def make_plan(config: Config, train: Manifest, world: World) -> BatchPlan:
    """Return the order of samples, and which of them each step of each rank takes."""
    return BatchPlan(
        num_records=len(train.records),
        batch_size=config.train.batch_size,
        seed=config.seed,
        world=world.size,
        rank=world.rank,
        accumulate=config.train.accumulate,
        pairs=mixes_clips(config),
        class_of=classes_to_balance(train) if config.train.balanced_sampling else None,
    )


def mixes_clips(config: Config) -> bool:
    """Return True if training mixes each clip with a partner."""
    augment = config.augment
    return config.train.task == "classify" and (augment.mixup > 0 or augment.cutmix > 0)


def make_clips(
    config: Config,
    train: Manifest,
    num_classes: int | None,
    *,
    need_labels: bool,
    device: torch.device = CPU,
) -> TrainClips:
    """Return the training samples of `train`, for a model on `device`."""
    if isinstance(train, BoxManifest):
        return detect.make_box_clips(
            config, train, num_classes, need_labels=need_labels, device=device
        )
    classify = config.train.task == "classify"
    label_flip = make_label_flip(train.class_names, config.augment.flip) if classify else None
    augment = config.augment if label_flip is None else replace(config.augment, flip=0.0)
    return TrainClips(
        train,
        config.clip,
        TrainTransform(place_augmentation(augment, device), config.input_size[1]),
        seed=config.seed,
        decoder=config.data.backend,
        on_broken=config.data.on_broken,
        need_labels=need_labels,
        num_classes=num_classes,
        independent_repeats=config.train.task == "pretrain",
        quarantine=make_quarantine_policy(config),
        label_flip=label_flip,
    )


def make_task(config: Config, train: Manifest, num_classes: int | None, model: nn.Module) -> Task:
    """Return the task that `train.task` names."""
    if isinstance(model, MaskedAutoencoderHiera):
        return Pretrain(
            draw_keep=model.draw_keep,
            tokens=model.unit_tokens.numel(),
            visible=model.num_visible_units(),
        )
    assert num_classes is not None
    if config.train.task == "detect":
        return detect.make_detection_task(config, train, num_classes)
    weights = None
    if config.train.weighted_loss:
        labels = [record.label for record in train.records]
        weights = class_weights(labels, num_classes, multi_label=train.multi_label)
    return Classify(
        num_classes=num_classes,
        multi_label=train.multi_label,
        augment=config.augment,
        class_weights=weights,
    )


def make_evaluator(config: Config, val: Manifest | None, world: World) -> Evaluator | None:
    """Return the validation of a run: the test's protocol with one centre view per video."""
    if val is None:
        return None
    if config.train.task == "detect":
        return detect.make_detection_evaluator(config, val, world)
    views = make_views(config, val, clips=1, crops=1)
    if config.train.task == "pretrain":
        pictures = Path(config.out_dir) / "reconstructions"
        return Reconstruction(
            dataset=views,
            batch_size=config.test.batch_size,
            workers=config.data.workers,
            world=world,
            mean=config.augment.mean,
            std=config.augment.std,
            pictures=pictures if config.mae.target == "pixels" else None,
            labels=choose_probe_labels([record.label for record in val.records]),
        )
    return Accuracy(
        dataset=views,
        manifest=val,
        batch_size=config.test.batch_size,
        workers=config.data.workers,
        world=world,
        precision=config.test.precision,
        balanced=config.train.balanced_sampling,
    )


def describe(
    config: Config, train: Manifest, val: Manifest | None, num_classes: int | None
) -> dict[str, Any]:
    """Return the description of the model and its lists that every checkpoint holds.

    The classes of a task of one's own need not be those that the list names; names that the model
    has no outputs for are left out.
    """
    names = train.class_names
    fit = names is not None and (num_classes is None or len(names) == num_classes)
    return {
        "model": {
            **asdict(config.model),
            "num_classes": num_classes,
            "input_size": list(config.input_size),
        },
        "class_names": list(names) if names and fit else None,
        "multi_label": train.multi_label,
        "lists": digest_lists(config, train, val),
    }


def digest_lists(config: Config, train: Manifest, val: Manifest | None) -> dict[str, Any]:
    """Return the digests of the training and validation list, by `train` and `val`."""
    labels = config.train.task in ("classify", "detect")
    return {
        "train": list_digest(train, labels=labels),
        "val": list_digest(val, labels=labels) if val else None,
    }


def log_recipe(config: Config, train: Manifest, num_classes: int | None, trainer: Trainer) -> None:
    """Log the model, the data and the length of the run."""
    repeats = config.clip.repeats
    model = trainer.state.model
    total, trained = count_parameters(model), count_parameters(model, trained=True)
    logger.info(
        "%s: input %s, %.2f M parameters%s, %.1f GMACs per clip, %s",
        config.model.name,
        [3, *config.input_size],
        total / 1e6,
        f" ({trained / 1e6:.2f} M trained)" if trained < total else "",
        trainer.run.flops_per_clip / 6e9,
        count_of(num_classes, "class") if num_classes else f"{config.mae.mask_ratio:.0%} masked",
    )
    logger.info(
        "%s; batch of %s × %s, peak learning rate %s; %s (%s)",
        count_of(len(train.records), "video"),
        count_of(config.train.batch_size, "video"),
        count_of(repeats, "clip"),
        describe_lr(config),
        count_of(config.train.epochs, "epoch"),
        count_of(config.train.epochs * repeats, "effective epoch"),
    )
    for warning in recipe_warnings(config.train, config.optim, len(train.records)):
        logger.warning("warning: %s", warning)


def recipe_warnings(train: TrainConfig, optim: OptimConfig, num_videos: int) -> list[str]:
    """Describe settings that waste videos or epochs.

    Args:
        train: Length, batch size and averaging.
        optim: Warm-up.
        num_videos: Videos of the training list.
    """
    found = []
    steps_per_epoch, unused = divmod(num_videos, train.batch_size)
    if unused > MAX_UNUSED * num_videos and steps_per_epoch:
        found.append(
            f"train.batch_size={train.batch_size}: {unused} of {num_videos} videos are left over "
            "in each epoch (other ones each time); choose a batch size that divides their number"
        )
    if optim.warmup_epochs >= train.epochs:
        found.append(
            f"optim.warmup_epochs={optim.warmup_epochs:g}: is all of train.epochs={train.epochs}, "
            "so the learning rate only rises; lower it"
        )
    steps = train.epochs * steps_per_epoch
    if train.ema is not None and steps and (initial := train.ema**steps) > MAX_INITIAL:
        found.append(
            f"train.ema={train.ema:g}: after the run's {steps} steps, {initial:.0%} of the average "
            f"are still the weights of the first step; lower it to {0.01 ** (1 / steps):.2g} or "
            "less, or unset it"
        )
    return found


def describe_lr(config: Config) -> str:
    """Return the peak learning rate with its scaling: `0.0004 (optim.lr 0.0008 × 128 / 256)`."""
    optim, batch = config.optim, config.train.batch_size
    lr = f"{optim.for_batch(batch).lr:g}"
    if optim.lr_for_batch is None:
        return lr
    return f"{lr} (optim.lr {optim.lr:g} × {batch} / {optim.lr_for_batch})"
