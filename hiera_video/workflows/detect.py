"""Parts of the training and of the test of an action detector, built from a `Config`."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from hiera_video.config.schema import Config
from hiera_video.data.detection.dataset import BoxViews, FrameCrops, TrainKeyFrames
from hiera_video.data.detection.key_frame import BoxManifest
from hiera_video.data.manifest.record import Manifest
from hiera_video.data.transforms.flip_labels import make_label_flip
from hiera_video.data.transforms.on_device import place_augmentation
from hiera_video.data.transforms.train_eval import TrainTransform
from hiera_video.eval.box_scores import FrameMAP
from hiera_video.models.detection import HieraDetector
from hiera_video.models.registry import config_for
from hiera_video.models.weights.load import load_pretrained, read_weights
from hiera_video.runtime.distributed import World
from hiera_video.train.detect import DetectActions
from hiera_video.train.tasks import class_weights
from hiera_video.workflows.build import make_quarantine_policy
from hiera_video.workflows.key_frames import classes_that_count, read_boxes_to_score


def make_detector(config: Config, num_classes: int | None, *, pretrained: str | None) -> nn.Module:
    """Create the detector of `config.model`, with the weights `pretrained` where given."""
    model = config.model
    weights = None if pretrained in (None, "none") else read_weights(str(pretrained), model.name)
    if num_classes is None and weights is not None:
        num_classes = weights.num_classes
    detector = HieraDetector(
        config_for(
            model.name,
            input_size=model.input_size,
            num_classes=num_classes,
            drop_path_rate=model.drop_path_rate,
            head_dropout=model.head_dropout,
        ),
        model.checkpointing,
    )
    if weights is not None:
        load_pretrained(detector, weights, name=model.name)
    return detector


def make_box_clips(
    config: Config,
    train: Manifest,
    num_classes: int | None,
    *,
    need_labels: bool,
    device: torch.device,
) -> TrainKeyFrames:
    """Return the training samples of key frames, for a model on `device`."""
    label_flip = make_label_flip(train.class_names, config.augment.flip)
    augment = config.augment if label_flip is None else replace(config.augment, flip=0.0)
    return TrainKeyFrames(
        train,
        config.clip,
        TrainTransform(place_augmentation(augment, device), config.input_size[1]),
        start_seconds=config.detect.start_seconds,
        seed=config.seed,
        decoder=config.data.backend,
        on_broken=config.data.on_broken,
        need_labels=need_labels,
        num_classes=num_classes,
        quarantine=make_quarantine_policy(config),
        label_flip=label_flip,
    )


def make_detection_task(config: Config, train: Manifest, num_classes: int) -> DetectActions:
    """Return the objective, whose weights count the boxes of each class."""
    assert isinstance(train, BoxManifest)
    if not config.train.weighted_loss:
        return DetectActions()
    labels = [label for record in train.records for label in record.labels]
    return DetectActions(class_weights=class_weights(labels, num_classes, multi_label=True))


def make_box_views(config: Config, manifest: BoxManifest) -> BoxViews:
    """Return the crops of each key frame of `manifest`: `test.crops`, evenly spaced."""
    augment = config.augment
    transform = FrameCrops(config.input_size[1], config.test.crops, augment.mean, augment.std)
    return BoxViews(
        manifest,
        config.clip,
        transform,
        start_seconds=config.detect.start_seconds,
        decoder=config.data.backend,
        quarantine=make_quarantine_policy(config),
    )


def make_detection_evaluator(config: Config, val: Manifest, world: World) -> FrameMAP:
    """Return the validation of a detector: the protocol of its test."""
    assert isinstance(val, BoxManifest)
    return FrameMAP(
        dataset=make_box_views(config, read_boxes_to_score(config, val)),
        truth=val,
        counted=classes_that_count(config, val),
        batch_size=config.test.batch_size,
        workers=config.data.workers,
        world=world,
        precision=config.test.precision,
    )
