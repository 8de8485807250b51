"""From a `Config` to the objects that it names. What needs no torch (labels, paths) is checked before torch is imported."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from hiera_video.config.schema import Config
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest, as_tuple
from hiera_video.errors import ConfigError, ManifestError
from hiera_video.eval.class_names import align_classes, align_label_count, quote_names

if TYPE_CHECKING:
    from torch import nn

    from hiera_video.data.dataset import TestViews
    from hiera_video.data.loading.quarantine import QuarantinePolicy

logger = logging.getLogger(__name__)


def manifest_of(config: Config, split: str) -> Manifest:
    """The manifest of `data.<split>`; `test` falls back to `val`. Raises `ConfigError` where unset."""
    source = getattr(config.data, split) or (config.data.val if split == "test" else None)
    if source is None:
        raise ConfigError(
            f"data.{split} is not set; name a manifest (`path label` a line) or a folder of videos"
        )
    return read_manifest(source, root=config.data.root, separator=config.data.separator)


def num_classes_of(config: Config, *manifests: Manifest) -> int | None:
    """`model.num_classes`, or the first manifest's (the training's): as many as it names, and every label below it. None in
    pre-training: no labels."""
    if config.train.task == "pretrain":
        return None
    train, count = manifests[0], config.model.num_classes or manifests[0].num_classes
    if train.class_names is not None and len(train.class_names) != count:
        raise ManifestError(
            f"{train.source}: names {len(train.class_names)} classes, but model.num_classes={count}; set "
            "model.num_classes=null to take as many as it names"
        )
    for manifest in manifests:
        manifest.require_labels()
        if manifest.num_classes > count:
            remedy = f"set model.num_classes={manifest.num_classes} or correct the labels"
            if manifest.num_classes == count + 1 and _counts_from_one(manifest):
                remedy = "its labels begin at 1: classes count from 0, so take 1 from each"
            raise ManifestError(
                f"{manifest.source}: has labels up to {manifest.num_classes - 1}, the model has {count} classes; {remedy}"
            )
    if config.model.num_classes is None and train.class_names is None and _counts_from_one(train):
        logger.warning(
            "warning: %s: no video has label 0, and classes count from 0; if its labels begin at 1, take 1 from each",
            train.source,
        )
    return count


def _counts_from_one(manifest: Manifest) -> bool:
    return (
        min((index for record in manifest.records for index in as_tuple(record.label)), default=0)
        == 1
    )


def aligned_val(config: Config, train: Manifest, val: Manifest) -> Manifest:
    """`val` with labels that mean what `train`'s mean. Raises `ManifestError` where its classes are others, or the same in
    another order, unless `test.remap_classes`. Where one of the two has no names, indices are trusted; pre-training looks at
    none."""
    if config.train.task == "pretrain":
        return val
    val = align_label_count(val, train.multi_label, of=train.source)
    here, there = val.class_names, train.class_names
    if here is None or there is None or here == there[: len(here)]:
        return val
    if unknown := sorted(set(here) - set(there)):
        raise ManifestError(
            f"{val.source}: names classes that {train.source} does not: {quote_names(unknown)}; validate on the classes of the "
            "training, or write its names into the labels file"
        )
    if not config.test.remap_classes:
        place = next(index for index, name in enumerate(here) if there[index] != name)
        raise ManifestError(
            f"{val.source}: class {place} is {here[place]!r}, but {there[place]!r} in {train.source}: the same names in "
            "another order would validate against wrong labels; bring them into one order, or set "
            "test.remap_classes=true to map the labels by name"
        )
    return align_classes(val, there, checkpoint=train.source, remap=True)


def make_model(config: Config, num_classes: int | None, *, pretrained: str | None) -> nn.Module:
    """The network of `config.model`, with `pretrained` weights where given."""
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


def make_first_model(
    config: Config,
    num_classes: int | None,
    *,
    pretrained: str | None,
    class_names: tuple[str, ...] | None,
) -> nn.Module:
    """`make_model` for the start of a training. As many classes with other names are other classes: weights that name
    theirs give no head to a list that names its own (`class_names`) otherwise, and that is said."""
    if pretrained is None or class_names is None:
        return make_model(config, num_classes, pretrained=pretrained)
    from hiera_video.models.hiera import Hiera
    from hiera_video.models.weights.load import load_pretrained, read_weights

    weights = read_weights(pretrained, config.model.name)
    model = make_model(config, num_classes or weights.num_classes, pretrained=None)
    load_pretrained(model, weights, name=config.model.name)  # type: ignore[arg-type]
    theirs = weights.class_names
    if (
        isinstance(model, Hiera)
        and theirs
        and len(theirs) == len(class_names)
        and theirs != class_names
    ):
        model.reset_classifier(len(class_names))
        logger.info(
            "%s: head is fresh: its classes are %s, the list's are %s",
            pretrained,
            quote_names(theirs),
            quote_names(class_names),
        )
    return model


def make_views(config: Config, manifest: Manifest, *, clips: int, crops: int) -> TestViews:
    """The views of every video of `manifest`."""
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
    """How the loaders' workers are watched; videos that hang them are written down in the run's folder."""
    from hiera_video.data.loading.quarantine import FILE_NAME, QuarantinePolicy

    return QuarantinePolicy(
        deadline_seconds=config.data.deadline_seconds,
        file=str(Path(config.out_dir) / FILE_NAME),
    )
