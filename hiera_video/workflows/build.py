"""Objects that a `Config` describes: manifests, classes, models and test views.

Functions that check labels and paths import no torch, so that mistakes are reported at once.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hiera_video.config.schema import LIMITS, Config
from hiera_video.data.background import add_background
from hiera_video.data.manifest.merge import merge_manifests
from hiera_video.data.manifest.read import prepare_command, read_manifest
from hiera_video.data.manifest.record import Manifest
from hiera_video.data.prepare.sources import name_sources, source_names
from hiera_video.data.prepare.split import Part, split_parts, take_part
from hiera_video.errors import ConfigError, ManifestError
from hiera_video.eval.class_names import align_classes, align_label_count, quote_names
from hiera_video.utils.checks import require
from hiera_video.utils.remote_files import is_url
from hiera_video.utils.text_files import count_of
from hiera_video.workflows.key_frames import read_key_frames, require_same_classes

if TYPE_CHECKING:
    from torch import nn

    from hiera_video.data.dataset import TestViews
    from hiera_video.data.loading.quarantine import QuarantinePolicy

logger = logging.getLogger(__name__)
FILES_LOOKED_AT = 64
"""Validation videos whose existence is checked before training."""


def read_split(config: Config, split: str, *, background: bool = True) -> Manifest:
    """Read the manifest of `data.<split>`.

    Args:
        config: The experiment.
        split: `train`, `val` or `test`; `test` falls back to `val`.
        background: Add the records of `data.background`; to validation and test, one a video.

    Raises:
        ConfigError: The key is unset, or `data.background` does not go with the task.
        ManifestError: The manifest is missing or malformed.
    """
    manifest, share, task = _read_list(config, split), config.data.background, config.train.task
    if not (background and share):
        return manifest
    require(
        task in ("classify", "probe"),
        f"data.background={share:g}: goes with train.task=classify or probe, not {task}; set it "
        "to 0",
    )
    return add_background(manifest, share if split == "train" else None)


def _read_list(config: Config, split: str) -> Manifest:
    source, shares, listed = getattr(config.data, split), held_out_shares(config), split
    if split == "test" and source is None and "test" not in shares:
        source, listed = config.data.val, "val"
    if shares and (split == "train" or source is None):
        return _read_part(config, split, shares)
    if source is None:
        raise ConfigError(
            f"data.{split} is not set; set it to a manifest (`path label` lines) or a folder of "
            "videos"
        )
    _require_list(source, f"data.{split}")
    root = None if listed == "train" else getattr(config.data, f"{listed}_root")
    if root is not None:
        require(
            is_url(root) or Path(root).is_dir(),
            f"data.{listed}_root={root}: no such folder; set it to that of the videos",
        )
        config = replace(config, data=replace(config.data, root=root))
    if config.train.task == "detect":
        require(
            not config.data.train_also and not config.data.train_repeats,
            "data.train_also and data.train_repeats: do not go with train.task=detect; unset them",
        )
        return read_key_frames(config, split, source)
    manifest = read_manifest(source, **config.data.list_options)
    return _merge_lists(config, manifest) if split == "train" else manifest


def _require_list(source: str, key: str) -> None:
    if not is_url(source) and not Path(source).exists():
        without = ", or to null to train without validation" if key == "data.val" else ""
        raise ManifestError(
            f"{key}={source}: no such file or folder; set {key} to a list or folder of your "
            f"own{without}, or make it: `{prepare_command(source)}`"
        )


def _merge_lists(config: Config, first: Manifest) -> Manifest:
    """Return the videos of `data.train` and `data.train_also`; pre-training ignores labels."""
    data = config.data
    if not data.train_also and not data.train_repeats:
        return first
    for source in data.train_also:
        _require_list(source, "data.train_also")
    options = {**data.list_options, "root": None}
    manifests = [first, *(read_manifest(source, **options) for source in data.train_also)]
    if config.train.task == "pretrain":
        manifests = [replace(manifest, class_names=None) for manifest in manifests]
    return merge_manifests(manifests, data.train_repeats or (1,) * len(manifests))


def check_validation_files(config: Config, manifest: Manifest) -> None:
    """Fail where the first validation would, after an epoch: if none of its videos exists.

    Looks at up to `FILES_LOOKED_AT` videos over the list, which are files or folders of frames.
    """
    step = math.ceil(len(manifest.records) / FILES_LOOKED_AT) or 1
    paths = [record.path for record in manifest.records[::step] if not record.shard_video]
    missing = [path for path in paths if not is_url(path) and not Path(path).exists()]
    if not missing:
        return
    key = "data.val_root" if config.data.val_root else "data.root or data.val_root"
    found = f"{len(missing)} of {count_of(len(paths), 'video')} that were looked at do not exist"
    message = f"{manifest.source}: {found}, such as {missing[0]}"
    require(len(missing) < len(paths), f"{message}; set {key} to their folder")
    logger.warning("warning: %s; a validation leaves such videos out", message)


def has_validation(config: Config) -> bool:
    """Return True if a training has validation videos: `data.val`, or a share of `data.train`."""
    return config.data.val is not None or "val" in held_out_shares(config)


def held_out_shares(config: Config) -> dict[Part, float]:
    """Return the shares of `data.train` that are held out, by part; empty without `data.split`."""
    val, test = config.data.split or (0.0, 0.0)
    shares: dict[Part, float] = {"val": val, "test": 0.0 if config.data.test else test}
    return {part: share for part, share in shares.items() if share > 0}


def _read_part(config: Config, split: str, shares: Mapping[Part, float]) -> Manifest:
    """Return a part of `data.train`; the validation part stands for a test part of no share."""
    part: Part = "val" if split == "test" and "test" not in shares else cast(Part, split)
    whole = _read_list(replace(config, data=replace(config.data, split=None)), "train")
    paths = [record.path for record in whole.records]
    sources = source_names(paths, [name_sources(paths)])
    labels = [record.label for record in whole.records]
    found = take_part(whole, split_parts(labels, sources, shares), part)
    if not found.records:
        raise ManifestError(
            f"data.split={list(config.data.split or ())}: {whole.source} has too few videos for a "
            f"{part} part; add videos or set data.split=null"
        )
    return found


def resolve_num_classes(config: Config, *manifests: Manifest) -> int | None:
    """Return the number of classes, after checking every label against it.

    Args:
        config: The experiment.
        manifests: The training manifest, then others.

    Returns:
        `model.num_classes` or, where that is unset, the number in the training manifest; None for
        pre-training.

    Raises:
        ManifestError: A label is missing or out of range, the manifest names another number of
            classes, or there is one class.
    """
    if config.train.task == "pretrain":
        return None
    train, count = manifests[0], config.model.num_classes or manifests[0].num_classes
    if train.class_names is not None and len(train.class_names) != count:
        raise ManifestError(
            f"{train.source}: names {count_of(len(train.class_names), 'class')}, but "
            f"model.num_classes={count}; set model.num_classes=null to use the number it names"
        )
    for manifest in manifests:
        manifest.require_labels()
        remedy = f"set model.num_classes={manifest.highest_label + 1} or correct the labels"
        manifest.require_labels_below(count, "the model has", remedy)
    if count > LIMITS["model.num_classes"]:
        raise ManifestError(
            f"{train.source}: has labels up to {count - 1}, which is a slip: a model of so many "
            "classes fits no memory; correct the labels"
        )
    if count == 1 and not train.multi_label:
        raise ManifestError(
            f"{train.source}: has one class, and a classifier needs two or more; masked "
            "pre-training (train.task=pretrain) needs none"
        )
    if config.model.num_classes is None and train.class_names is None:
        _warn_of_gaps(train, count)
    return count


def _warn_of_gaps(train: Manifest, count: int) -> None:
    """Warn of class indices below the highest label that no video has."""
    labels = train.labels_present
    if min(labels) == 1:
        logger.warning(
            "warning: %s: no video has label 0, and classes count from 0; if its labels start at "
            "1, subtract 1 from each",
            train.source,
        )
    elif len(labels) < count:
        logger.warning(
            "warning: %s: labels up to %d make %d classes, but videos have only %d of them; number "
            "the classes from 0 without gaps, or set model.num_classes=%d if this is on purpose",
            train.source, count - 1, count, len(labels), count,
        )  # fmt: skip


def align_val(config: Config, train: Manifest, val: Manifest) -> Manifest:
    """Return `val` with labels that index the classes of `train`.

    Without class names on one side, the labels are trusted as they are. Pre-training ignores them.

    Raises:
        ManifestError: `val` has other classes, or the same in another order without
            `test.remap_classes`.
    """
    if config.train.task == "pretrain":
        return val
    if config.train.task == "detect":
        require_same_classes(val, train.class_names, train.source)
        return val
    val = align_label_count(val, train.multi_label, of=train.source)
    names, train_names = val.class_names, train.class_names
    if names is None or train_names is None or names == train_names[: len(names)]:
        return val
    if unknown := sorted(set(names) - set(train_names)):
        raise ManifestError(
            f"{val.source}: names classes that {train.source} does not: {quote_names(unknown)}; "
            "validate on the classes of the training set, or write its names into the labels file"
        )
    if not config.test.remap_classes:
        index = next(index for index, name in enumerate(names) if train_names[index] != name)
        missing = sorted(set(train_names) - set(names))
        cause = f"it lacks {quote_names(missing)}" if missing else "the names have another order"
        raise ManifestError(
            f"{val.source}: class {index} is {names[index]!r}, but {train_names[index]!r} in "
            f"{train.source}: {cause}; set test.remap_classes=true to map the labels by name"
        )
    return align_classes(val, train_names, checkpoint=train.source, remap=True)


def make_model(config: Config, num_classes: int | None, *, pretrained: str | None) -> nn.Module:
    """Create the model of `config.model`, with the weights `pretrained` where given."""
    if config.train.task == "detect":
        from hiera_video.workflows.detect import make_detector

        return make_detector(config, num_classes, pretrained=pretrained)
    from hiera_video.models.factory import create_model

    model = config.model
    return create_model(
        model.name,
        num_classes=num_classes,
        pretrained=pretrained,
        input_size=model.input_size,
        drop_path_rate=model.drop_path_rate,
        head_dropout=model.head_dropout,
        checkpointing=model.checkpointing,
        mae=config.mae if config.train.task == "pretrain" else None,
    )


def make_initial_model(
    config: Config,
    num_classes: int | None,
    *,
    pretrained: str | None,
    class_names: tuple[str, ...] | None,
) -> nn.Module:
    """Create the model that a run starts from.

    The head is newly initialised, and that is logged, if the weights were trained on the same
    number of classes with other names.

    Args:
        config: The experiment.
        num_classes: Classes of the model; None for pre-training.
        pretrained: Source of the weights; None for random ones.
        class_names: Class names of the training manifest, if it has any.
    """
    if pretrained is None or class_names is None:
        return make_model(config, num_classes, pretrained=pretrained)
    from hiera_video.models.hiera import Hiera
    from hiera_video.models.weights.load import load_pretrained, read_weights

    weights = read_weights(pretrained, config.model.name)
    model = make_model(config, num_classes or weights.num_classes, pretrained=None)
    load_pretrained(model, weights, name=config.model.name)  # type: ignore[arg-type]
    names = weights.class_names
    renamed = names and len(names) == len(class_names) and names != class_names
    if isinstance(model, Hiera) and names and renamed:
        model.reset_classifier(len(class_names))
        logger.info(
            "%s: head newly initialised: its classes are %s, those of the training are %s",
            pretrained,
            quote_names(names),
            quote_names(class_names),
        )
    return model


def make_views(config: Config, manifest: Manifest, *, clips: int, crops: int) -> TestViews:
    """Return the test views of every video of `manifest`.

    Args:
        config: The experiment.
        manifest: Videos.
        clips: Temporal clips per video.
        crops: Spatial crops per clip.
    """
    from hiera_video.data.dataset import TestViews
    from hiera_video.data.transforms.train_eval import EvalTransform

    transform = EvalTransform(config.input_size[1], crops, config.augment.mean, config.augment.std)
    return TestViews(
        manifest,
        config.clip,
        transform,
        num_clips=clips,
        decoder=config.data.backend,
        quarantine=make_quarantine_policy(config),
    )


def make_quarantine_policy(config: Config) -> QuarantinePolicy:
    """Return the policy for videos that hang workers; they are recorded in the run folder."""
    from hiera_video.data.loading.quarantine import FILE_NAME, QuarantinePolicy

    return QuarantinePolicy(
        deadline_seconds=config.data.deadline_seconds,
        file=str(Path(config.out_dir) / FILE_NAME),
    )
