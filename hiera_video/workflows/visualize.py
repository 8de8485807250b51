"""The `visualize` command: contact sheets of videos, and reconstructions of masked autoencoders."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from hiera_video.data.dataset import VideoViews
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.errors import ConfigError, DecodeError
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.utils.short_paths import short_paths
from hiera_video.video import open_video
from hiera_video.video.options import Backend
from hiera_video.viz.reconstructions import reconstruction_sheet
from hiera_video.viz.sheet import Strip, contact_sheet
from hiera_video.workflows.build import make_views
from hiera_video.workflows.load_run import LoadedRun, predict_videos

logger = logging.getLogger(__name__)
STRIP_FRAMES = 8


def video_sheet(paths: Sequence[Path], backend: Backend, run: LoadedRun | None = None) -> bytes:
    """Return a PNG with evenly spaced frames of each video.

    Args:
        paths: Videos; a grey box stands for an unreadable one.
        backend: Decoder.
        run: A trained classifier, whose first class of each video is added to the titles.
    """
    names = short_paths(map(str, paths))
    answers = [""] * len(paths)
    if run is not None:
        for index, found in enumerate(predict_videos(run, paths, topk=1)):
            if not isinstance(found, DecodeError):
                answers[index] = f"  {found[0].label} {found[0].probability:.1%}"
    strips = []
    for path, answer in zip(paths, answers):
        title, frames = names[str(path)] + answer, None
        try:
            with open_video(path, backend) as video:
                info = video.info
                title += f"  {info.width}×{info.height}, {info.fps:g} fps, "
                title += f"{info.duration_seconds:.1f} s"
                last = len(video.times) - 1
                chosen = np.unique(np.linspace(0, last, STRIP_FRAMES).round().astype(int))
                frames = video.frames(chosen.tolist())
        except DecodeError as error:
            logger.warning("%s", error)
        strips.append(Strip(title=title, frames=frames))
    return contact_sheet(strips)


@torch.inference_mode()
def reconstructions(run: LoadedRun, paths: Sequence[Path]) -> bytes:
    """Return a PNG with original, visible and reconstructed frames of the middle of each video.

    The mask of a video depends on its place in `paths` alone.

    Args:
        run: A run of masked pre-training.
        paths: Videos; unreadable ones are logged and left out.

    Raises:
        ConfigError: No video can be read.
    """
    model, config = run.model, run.config
    assert isinstance(model, MaskedAutoencoderHiera)
    records = tuple(Record(path=str(path), label=None, row=row) for row, path in enumerate(paths))
    manifest = Manifest(records=records, class_names=None, multi_label=False, source="visualize")
    views = make_views(config, manifest, clips=1, crops=1)
    clips, generators = [], []
    for row in range(len(records)):
        video = views[row]
        if not isinstance(video, VideoViews):
            logger.warning("%s", video.message)
            continue
        clips.append(video.views[0])
        seed = random.Random(f"visualize/{row}").getrandbits(63)
        generators.append(torch.Generator().manual_seed(seed))
    if not clips:
        raise ConfigError("none of the videos can be read; hiera-video check-data says why")
    batch = torch.stack(clips).to(next(model.parameters()).device)
    keep = model.draw_keep(len(clips), generators).to(batch.device)
    pictures = model.pictures(batch, model(batch, keep=keep))
    augment = config.augment
    return reconstruction_sheet(pictures, mean=augment.mean, std=augment.std)
