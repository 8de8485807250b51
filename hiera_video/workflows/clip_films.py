"""Renderings of clips for `hiera-video visualize`: explanations, mask units, augmentations."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hiera_video.config.schema import Config
from hiera_video.data.loading.loader import test_loader
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.errors import DecodeError
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.registry import config_for
from hiera_video.utils.checks import require
from hiera_video.utils.short_paths import short_paths
from hiera_video.video import open_video
from hiera_video.viz.films import ClipFilm, Rendering
from hiera_video.viz.overlays import as_pictures, draw_grid, hide_cells, overlay, tint
from hiera_video.workflows.build import make_model, make_views
from hiera_video.workflows.explain import CAVEATS, Explanation, Method, explain_clip, view_of
from hiera_video.workflows.load_run import LoadedRun, as_record, require_classes
from hiera_video.workflows.train_components import make_clips, mixes_clips

logger = logging.getLogger(__name__)
AUGMENTED = 3
"""Training clips that are drawn of each video."""


def explained_films(
    run: LoadedRun,
    videos: Sequence[Path | Record],
    method: Method,
    target: int | str | None = None,
    **options: Any,
) -> list[ClipFilm]:
    """Return the middle clip of each video and a map over it; see `explain`.

    Raises:
        ConfigError: No video can be read, or as for `explain`.
    """
    require_classes(run)
    if method in CAVEATS:
        logger.info("%s: %s", method, CAVEATS[method])
    films = []
    for view in middle_views(run.config, videos, crops=run.config.test.crops):
        found = explain_clip(run, view.clip, target, method, clip_seconds=view.seconds, **options)
        films.append(explanation_film(found, view.title))
    return films


def explanation_film(found: Explanation, title: str) -> ClipFilm:
    """Return the frames of an explanation and its map over them.

    Evidence is drawn relative to its mean over the clip: most of a logit is common to all places.
    """
    maps, caption = found.maps, str(found.method)
    if found.unit == "colour":
        caption, drawn = "features as colours", tint(found.frames, maps)
    else:
        if found.method == "evidence":
            maps = maps - maps.mean()
        if found.unit == "logits":
            side = "the clip's mean" if found.method == "evidence" else "0"
            largest = float(np.abs(maps).max())
            caption += f": red above {side}, blue below, up to {largest:.2g} logits"
        else:
            caption += ": red where more attention goes"
        drawn = overlay(found.frames, maps)
    return ClipFilm(
        title=title,
        renderings=(
            Rendering(caption=f"{found.label} {found.probability:.1%}", frames=found.frames),
            Rendering(caption=caption, frames=drawn),
        ),
        fps=_fps(found.frames, found.clip_seconds),
    )


def unit_films(config: Config, videos: Sequence[Path | Record]) -> list[ClipFilm]:
    """Return the middle clip of each video with its mask units, and masked as in pre-training.

    Raises:
        ConfigError: No video can be read.
    """
    model = config_for(config.model.name, input_size=config.model.input_size)
    frames_of_unit, height, width = model.unit_pixels
    grid = "×".join(map(str, model.unit_grid))
    caption = f"{grid} mask units, each {frames_of_unit} frames of {height}×{width} pixels"
    pretrains, films = config.train.task == "pretrain", []
    for view in middle_views(config, videos, crops=1):
        frames = _pictures(config, view.clip)
        lines = Rendering(caption=caption, frames=draw_grid(frames, (height, width)))
        masked = [_masked(config, model.unit_grid, frames, view.row)] if pretrains else []
        fps = _fps(frames, view.seconds)
        films.append(ClipFilm(title=view.title, renderings=(lines, *masked), fps=fps))
    return films


def _masked(
    config: Config, grid: tuple[int, ...], frames: NDArray[np.uint8], row: int
) -> Rendering:
    """Return frames with a mask that depends on the video's place in the list alone."""
    with torch.device("meta"):  # its masking needs no weights
        model = make_model(config, None, pretrained=None)
    assert isinstance(model, MaskedAutoencoderHiera)
    keep = model.draw_keep(1, [_generator("visualize", row)])[0]
    return Rendering(
        caption=f"mae.masking={config.mae.masking}, {(~keep).float().mean():.0%} hidden",
        frames=hide_cells(frames, keep.view(grid).numpy()),
    )


def augmented_films(config: Config, videos: Sequence[Path | Record]) -> list[ClipFilm]:
    """Return training clips of each video, as the model is fed in the first epochs.

    Mixing, which needs a batch, is left out, and that is logged.

    Raises:
        ConfigError: No video can be read, one is too short for a clip, or the model detects.
    """
    require(
        config.train.task != "detect",
        "train.task=detect: its clips are cropped around boxes of a list, which are not drawn; use "
        "the configuration of a classification",
    )
    if mixes_clips(config):
        logger.info("augment.mixup and augment.cutmix mix clips of a batch; they are not drawn")
    manifest = _manifest(videos)
    strict = replace(config, data=replace(config.data, on_broken="error"))
    dataset = make_clips(strict, manifest, None, need_labels=False)
    names, films = short_paths(record.path for record in manifest.records), []
    for place, record in enumerate(manifest.records):
        try:
            samples = [dataset[epoch, place].clips[0].finish() for epoch in range(AUGMENTED)]
        except DecodeError as error:
            logger.warning("%s", error)
            continue
        renderings = tuple(
            Rendering(caption=f"epoch {epoch + 1}", frames=_pictures(config, sample.pixels))
            for epoch, sample in enumerate(samples)
        )
        with open_video(record.source, config.data.backend) as video:
            rate = config.clip.target_fps or video.fps
        fps = rate / config.clip.frame_stride
        films.append(ClipFilm(title=names[record.path], renderings=renderings, fps=fps))
    require_any(len(films))
    return films


def reconstructed_films(
    model: MaskedAutoencoderHiera, config: Config, videos: Sequence[Path | Record]
) -> list[ClipFilm]:
    """Return original, visible and predicted frames of the middle clip of each video.

    Raises:
        ConfigError: No video can be read.
    """
    views = list(middle_views(config, videos, crops=1))
    films = []
    for view, *clips in zip(views, *reconstruct(model, views)):
        renderings = tuple(
            Rendering(caption=caption, frames=_pictures(config, clip))
            for caption, clip in zip(("original", "visible", "prediction"), clips)
        )
        fps = _fps(renderings[0].frames, view.seconds)
        films.append(ClipFilm(title=view.title, renderings=renderings, fps=fps))
    return films


@torch.inference_mode()
def reconstruct(
    model: MaskedAutoencoderHiera, views: Sequence[MiddleView]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return original, visible and predicted clips [B, 3, t, S, S].

    The mask of a video depends on its place in the list alone. Predictions are drawn with the true
    mean and contrast of each patch, and that is logged.
    """
    logger.info(
        "predictions are drawn with the true mean and contrast of each patch, which the model does "
        "not predict"
    )
    batch = torch.stack([view.clip for view in views]).to(next(model.parameters()).device)
    keep = model.draw_keep(len(views), [_generator("visualize", view.row) for view in views])
    return model.pictures(batch, model(batch, keep=keep.to(batch.device)))


@dataclass(frozen=True, kw_only=True, eq=False)
class MiddleView:
    """One view of a video."""

    row: int
    """Place of the video in the list."""
    title: str
    """As much of the path as tells the video from the others."""
    clip: Tensor
    """[3, T, S, S], normalised."""
    seconds: tuple[float, float]
    """Start of the clip's first frame and end of its last."""


def middle_views(
    config: Config, videos: Sequence[Path | Record], *, crops: int
) -> Iterator[MiddleView]:
    """Yield the middle crop of the middle clip of each video; unreadable ones are logged.

    Videos are read in a worker, which is killed if one takes over the deadline.

    Raises:
        ConfigError: No video can be read.
    """
    manifest = _manifest(videos)
    views = make_views(config, manifest, clips=1, crops=crops)
    views.quarantine = replace(views.quarantine, file=None)
    names, count = short_paths(record.path for record in manifest.records), 0
    loader = test_loader(views, workers=1, rows=range(len(videos)))
    for record, video in zip(manifest.records, loader):
        try:
            clip, seconds = view_of(video)
        except DecodeError as error:
            logger.warning("%s", error)
            continue
        count += 1
        yield MiddleView(row=record.row, title=names[record.path], clip=clip, seconds=seconds)
    require_any(count)


def _manifest(videos: Sequence[Path | Record]) -> Manifest:
    records = tuple(as_record(video, row) for row, video in enumerate(videos))
    return Manifest(records=records, class_names=None, multi_label=False, source="visualize")


def require_any(count: int) -> None:
    """Raise a ConfigError unless at least one of the videos was read."""
    require(count > 0, "none of the videos can be read; hiera-video check-data says why")


def _generator(name: str, row: int) -> torch.Generator:
    return torch.Generator().manual_seed(random.Random(f"{name}/{row}").getrandbits(63))


def _pictures(config: Config, clip: Tensor) -> NDArray[np.uint8]:
    return as_pictures(clip, mean=config.augment.mean, std=config.augment.std)


def _fps(frames: NDArray[np.uint8], seconds: tuple[float, float] | None) -> float:
    """Return the rate at which the frames of a clip last as long as the clip."""
    if seconds is None or seconds[1] <= seconds[0]:
        return float(len(frames))
    return len(frames) / (seconds[1] - seconds[0])
