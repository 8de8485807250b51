"""Pictures of a training before it starts: augmented clips and the learning rate."""

from __future__ import annotations

import numpy as np
import torch

from hiera_video.config.schema import Config
from hiera_video.data.manifest.record import Manifest, as_tuple
from hiera_video.data.transforms.clip_sample import ClipSample
from hiera_video.eval.class_names import output_names
from hiera_video.train.schedule import lr_at
from hiera_video.utils.short_paths import short_paths
from hiera_video.viz.plots import compare_curves
from hiera_video.viz.sheet import Strip, contact_sheet
from hiera_video.workflows.train_components import make_clips

ROWS, FRAMES = 12, 8


def augmented_clips(config: Config, train: Manifest, num_classes: int | None) -> bytes:
    """Return a PNG with clips of the first epoch as the model receives them, unmixed.

    Args:
        config: The training.
        train: Its videos; up to `ROWS` of them are drawn, evenly spaced in the list.
        num_classes: Classes of the model.
    """
    dataset = make_clips(config, train, num_classes, need_labels=True)
    dataset.quarantine = type(dataset.quarantine)(
        deadline_seconds=dataset.quarantine.deadline_seconds
    )
    count = len(train.records)
    places = sorted({int(place) for place in np.linspace(0, count - 1, min(ROWS, count))})
    names = output_names(train.class_names, num_classes or train.num_classes)
    paths = short_paths(record.path for record in train.records)
    strips = []
    for place in places:
        samples = dataset.samples(0, place)
        record, label = train.records[samples.row], samples.labels[0]
        title = ", ".join(names[index] for index in as_tuple(label))
        title += f"  {paths[record.path]}{' (mirrored)' if label != record.label else ''}"
        strips.append(Strip(title=title, frames=clip_frames(config, samples.clips[0])))
    return contact_sheet(strips)


def clip_frames(config: Config, sample: ClipSample) -> np.ndarray:
    """Return evenly spaced frames of a training clip without its normalisation.

    Returns:
        uint8 [FRAMES, S, S, 3].
    """
    clip = sample.finish().pixels
    mean, std = (
        torch.tensor(values).view(3, 1, 1, 1)
        for values in (config.augment.mean, config.augment.std)
    )
    pixels = ((clip * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    chosen = np.linspace(0, clip.shape[1] - 1, min(FRAMES, clip.shape[1])).round().astype(int)
    frames: np.ndarray = pixels.permute(1, 2, 3, 0).numpy()[chosen]
    return frames


def learning_rate_curve(config: Config, videos: int) -> bytes:
    """Return a plot of the peak learning rate over the steps of a training on `videos` videos."""
    optim, train = config.optim.for_batch(config.train.batch_size), config.train
    per_epoch = videos // train.batch_size
    total = train.epochs * per_epoch
    rates = [
        (
            step,
            lr_at(
                step,
                total_steps=total,
                warmup_steps=round(optim.warmup_epochs * per_epoch),
                peak=optim.lr,
                start=optim.warmup_lr,
                end=optim.min_lr,
                cosine_after_warmup=optim.cosine_after_warmup,
            ),
        )
        for step in range(0, total, max(total // 400, 1))
    ]
    return compare_curves({f"{total} steps": rates}, "learning rate")
