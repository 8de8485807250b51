"""Augmented clips of a training before it starts."""

from __future__ import annotations

import numpy as np

from hiera_video.config.schema import Config
from hiera_video.data.manifest.record import Manifest, as_tuple
from hiera_video.eval.class_names import output_names
from hiera_video.utils.short_paths import short_paths
from hiera_video.viz.overlays import as_pictures
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
        clip = samples.clips[0].finish().pixels
        frames = as_pictures(clip, mean=config.augment.mean, std=config.augment.std)
        chosen = np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int)
        strips.append(Strip(title=title, frames=frames[chosen]))
    return contact_sheet(strips)
