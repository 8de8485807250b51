"""The `visualize` command: contact sheets of videos, reconstructions, schedules, and films."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from hiera_video.config.load import override_config
from hiera_video.config.schema import Config
from hiera_video.data.clip_frames import record_frame_range
from hiera_video.data.manifest.record import Record
from hiera_video.data.sampling import ClipConfig
from hiera_video.errors import ConfigError, DecodeError
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.registry import ModelConfig, config_for, default_mae, is_mae
from hiera_video.train.config import TrainConfig
from hiera_video.train.schedule import lr_at
from hiera_video.utils.checks import require
from hiera_video.utils.short_paths import short_paths
from hiera_video.video import open_video
from hiera_video.video.encode import write_video
from hiera_video.video.options import Backend
from hiera_video.viz.films import ClipFilm, encode_gif, film_frames, film_sheet
from hiera_video.viz.plots import learning_rate_curve
from hiera_video.viz.reconstructions import reconstruction_sheet
from hiera_video.viz.sheet import Strip, contact_sheet
from hiera_video.workflows.build import make_model
from hiera_video.workflows.clip_films import middle_views, reconstruct, require_any
from hiera_video.workflows.load_run import LoadedRun, as_record, predict_videos
from hiera_video.workflows.predict import ModelSource, write_file

logger = logging.getLogger(__name__)
STRIP_FRAMES = 8
STEPS_PER_EPOCH = 100
"""Points of an epoch in the plot of a schedule."""


def video_sheet(
    videos: Sequence[Path | Record], backend: Backend, run: LoadedRun | None = None
) -> bytes:
    """Return a PNG with evenly spaced frames of each video.

    Args:
        videos: Videos, or records, of which the segment is drawn; a grey box stands for an
            unreadable one.
        backend: Decoder.
        run: A trained classifier, whose first class of each video is added to the titles.

    Raises:
        ConfigError: No video can be read.
    """
    records = [as_record(video) for video in videos]
    names = short_paths(record.path for record in records)
    answers = [""] * len(records)
    if run is not None:
        for index, found in enumerate(predict_videos(run, records, topk=1)):
            if not isinstance(found, DecodeError):
                answers[index] = f"  {found[0].label} {found[0].probability:.1%}"
    strips = []
    for record, answer in zip(records, answers):
        title, frames = names[record.path] + answer, None
        try:
            with open_video(record.source, backend) as video:
                info, part = video.info, record_frame_range(video, record)
                title += f"  {info.width}×{info.height}, {info.fps:g} fps, "
                title += f"{info.duration_seconds:.1f} s"
                last = part.first + part.num_frames - 1
                chosen = np.unique(np.linspace(part.first, last, STRIP_FRAMES).round().astype(int))
                frames = video.frames(chosen.tolist())
        except DecodeError as error:
            logger.warning("%s", error)
        strips.append(Strip(title=title, frames=frames))
    require_any(sum(strip.frames is not None for strip in strips))
    return contact_sheet(strips)


def reconstructions(
    model: MaskedAutoencoderHiera, config: Config, videos: Sequence[Path | Record]
) -> bytes:
    """Return a PNG with original, visible and reconstructed frames of the middle of each video.

    The mask of a video depends on its place in `videos` alone.

    Args:
        model: A masked autoencoder in evaluation mode.
        config: Its clips and normalisation.
        videos: Unreadable ones are logged and left out.

    Raises:
        ConfigError: No video can be read.
    """
    views = list(middle_views(config, videos, crops=1))
    augment = config.augment
    return reconstruction_sheet(reconstruct(model, views), mean=augment.mean, std=augment.std)


def load_autoencoder(source: ModelSource) -> tuple[MaskedAutoencoderHiera, Config]:
    """Load a masked autoencoder, of a run or by name with weights, onto the GPU if there is one.

    Raises:
        ConfigError: The model is a classifier.
        CheckpointError: The weights cannot be read, or have no decoder.
    """
    if source.run is not None:
        run = source.load()
        if not isinstance(run.model, MaskedAutoencoderHiera):
            raise ConfigError(
                f"--run {source.run}: is no run of masked pre-training, so it reconstructs nothing"
            )
        return run.model, run.config
    name, pretrained = str(source.model), str(source.pretrained)
    config = override_config(config_for_drawing(name), source.overrides)
    model = make_model(config, None, pretrained=pretrained).eval()
    assert isinstance(model, MaskedAutoencoderHiera)
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), config


def config_for_drawing(name: str) -> Config:
    """Return the configuration of a masked autoencoder by name, with its own settings.

    Raises:
        ConfigError: `name` is unknown, or of another kind.
    """
    size = config_for(name).input_size
    require(
        is_mae(name) and len(size) == 3,
        f"--model {name}: reconstructs nothing; name a masked autoencoder of videos, such as "
        "mae_hiera_base_16x224",
    )
    return Config(
        model=ModelConfig(name=name),
        mae=default_mae(name),
        clip=ClipConfig(num_frames=size[0]),
        train=TrainConfig(task="pretrain"),
    )


def schedule_plot(config: Config) -> bytes:
    """Return a PNG with the learning rate of a training over its epochs."""
    epochs, optim = config.train.epochs, config.optim.for_batch(config.train.batch_size)
    steps = range(epochs * STEPS_PER_EPOCH)
    rates = [
        lr_at(
            step,
            total_steps=len(steps),
            warmup_steps=round(optim.warmup_epochs * STEPS_PER_EPOCH),
            peak=optim.lr,
            start=optim.warmup_lr,
            end=optim.min_lr,
            cosine_after_warmup=optim.cosine_after_warmup,
        )
        for step in steps
    ]
    return learning_rate_curve([step / STEPS_PER_EPOCH for step in steps], rates)


def write_films(output: str, films: Sequence[ClipFilm]) -> None:
    """Write films as a PNG, GIF or MP4, by the suffix of `output`; a file moves as its first clip.

    Raises:
        ConfigError: The file cannot be written.
    """
    suffix = Path(output).suffix.lower()
    if suffix == ".png":
        write_file(output, film_sheet(films))
    elif suffix == ".gif":
        write_file(output, encode_gif(film_frames(films), films[0].fps))
    else:
        write_video(output, film_frames(films), fps=films[0].fps)
