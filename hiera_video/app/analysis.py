"""What the page says of a video: classes along it, evidence, reconstruction, nearest videos."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hiera_video.app.reading import (
    ClipSource,
    UploadedVideo,
    UploadReader,
    read_upload,
)
from hiera_video.app.uploads import AppLimits
from hiera_video.errors import ConfigError
from hiera_video.eval.class_names import output_names
from hiera_video.eval.forward import compute_logits
from hiera_video.eval.segments.find import FoundSegment, ScoreCurve, find_segments
from hiera_video.eval.segments.settings import SegmentSettings
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.runtime.precision import autocast
from hiera_video.viz.overlays import overlay
from hiera_video.viz.reconstructions import reconstruction_sheet
from hiera_video.viz.strips import film_strip
from hiera_video.workflows.explain import Explanation, Method, explain_clip
from hiera_video.workflows.load_run import LoadedRun, class_probabilities, require_classes
from hiera_video.workflows.segments import background_of

if TYPE_CHECKING:
    from hiera_video.app.nearest import NearVideos  # its imports belong to the extra `features`

TOPK = 5
MAE = "mae"
"""Name of the masked autoencoder's clip among `UploadedVideo.others`."""
STRIP_HEIGHT = 96
STRIP_FRAMES = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """The classes of a video, and the clips of which the page can show more."""

    video: UploadedVideo
    names: tuple[str, ...]
    """Name of each class."""
    probabilities: NDArray[np.float32]
    """[n, K] probability of each class in each of `video.windows`."""
    segments: tuple[FoundSegment, ...]
    """Segments of these windows, in order of time."""
    best: int
    """The window with the highest probability of the first class."""
    near: bytes | str | None
    """A contact sheet of the nearest videos of the store, or why there is none; None without a
    store."""

    @property
    def means(self) -> NDArray[np.float32]:
        """Probability of each class, the mean over the windows."""
        means: NDArray[np.float32] = self.probabilities.mean(axis=0)
        return means

    @property
    def top(self) -> list[int]:
        """Indices of the most likely classes, most likely first."""
        order: list[int] = np.argsort(-self.means, kind="stable")[:TOPK].tolist()
        return order

    @property
    def clip(self) -> Tensor:
        """The middle crop of the best window's clip, [3, T, S, S], normalised."""
        views = self.video.windows[self.best].views
        return views[len(views) // 2]


class Analyser:
    """A classifier and, where they are given, a masked autoencoder and a feature store.

    Args:
        run: The classifier.
        limits: Limits of the page.
        mae: A run of masked pre-training.
        near: A feature store to search.
        settings: How segments are found.

    Raises:
        ConfigError: `run` has no classes, or `mae` is no run of masked pre-training.
    """

    def __init__(
        self,
        run: LoadedRun,
        limits: AppLimits,
        mae: LoadedRun | None = None,
        near: NearVideos | None = None,
        settings: SegmentSettings | None = None,
    ) -> None:
        require_classes(run)
        if mae is not None and not isinstance(mae.model, MaskedAutoencoderHiera):
            raise ConfigError(
                f"--mae {mae.config.out_dir}: is no run of masked pre-training; give one, such as "
                "the run that --run was fine-tuned from"
            )
        self.run, self.limits = run, limits
        self._mae, self._near, self._settings = mae, near, settings or SegmentSettings()
        self._reader = UploadReader(
            ClipSource(clip=run.config.clip, transform=run.transform),
            {MAE: ClipSource(clip=mae.config.clip, transform=mae.transform)} if mae else {},
            limits,
        )
        self._lock = threading.Lock()

    @property
    def autoencoder(self) -> MaskedAutoencoderHiera | None:
        """The masked autoencoder, if there is one."""
        model = self._mae.model if self._mae else None
        return model if isinstance(model, MaskedAutoencoderHiera) else None

    def analyse(self, path: Path) -> Analysis:
        """Return the classes of a video.

        Raises:
            DecodeError: The video cannot be read, or is over a limit.
        """
        with self._lock:
            video = read_upload(self._reader, path, self.limits)
            near = self._near.look_up(path) if self._near is not None else None
            return self._classify(video, near)

    def _classify(self, video: UploadedVideo, near: bytes | str | None) -> Analysis:
        run = self.run
        device, precision = next(run.model.parameters()).device, run.config.test.precision
        with torch.inference_mode():
            rows = [
                class_probabilities(run, compute_logits(run.model, view.to(device), precision))
                for view in (window.views for window in video.windows)
            ]
        probabilities = torch.stack(rows).float().numpy()
        first = int(probabilities.mean(axis=0).argmax())
        best = int(probabilities[:, first].argmax())
        names = output_names(run.class_names, probabilities.shape[1])
        return Analysis(
            video=video.keep_views(best),
            names=names,
            probabilities=probabilities,
            segments=tuple(self._segments(video, probabilities, names)),
            best=best,
            near=near,
        )

    def _segments(
        self, video: UploadedVideo, probabilities: NDArray[np.float32], names: tuple[str, ...]
    ) -> list[FoundSegment]:
        """Find segments as `predict --segments` does, in the page's fewer windows."""
        spans = [(window.start_seconds, window.end_seconds) for window in video.windows]
        length = spans[0][1] - spans[0][0]
        curve = ScoreCurve(
            centres=np.array(spans).mean(axis=1),
            scores=probabilities,
            start_seconds=spans[0][0],
            end_seconds=spans[-1][1],
        )
        rule = self._settings.rule(names, window=length, multi_label=self.run.multi_label)
        smoothed = curve.smoothed(self._settings.smoothing(length))
        return find_segments(smoothed, rule, skip=background_of(names))

    def explain(self, analysis: Analysis, target: int, method: Method) -> Explanation:
        """Return what the answer for a class is based on in the analysis's clip."""
        window = analysis.video.windows[analysis.best]
        seconds = (window.start_seconds, window.end_seconds)
        with self._lock:
            return explain_clip(self.run, analysis.clip, target, method, clip_seconds=seconds)

    def reconstruct(self, analysis: Analysis, mask_ratio: float) -> bytes:
        """Return a PNG: original, visible and reconstructed frames of the middle clip.

        Raises:
            ConfigError: `mask_ratio` leaves no unit visible or none hidden.
        """
        model = self.autoencoder
        assert model is not None and self._mae is not None
        augment = self._mae.config.augment
        views = analysis.video.others[MAE]
        device = next(model.parameters()).device
        clip = views[len(views) // 2].unsqueeze(0).to(device)
        with self._lock, torch.inference_mode(), autocast("fp32", device):
            generator = torch.Generator().manual_seed(0)  # the same mask each time
            keep = model.draw_keep(1, generator, mask_ratio).to(device)
            output = model(clip, keep=keep)
            pictures = model.pictures(clip, output)
        return reconstruction_sheet(pictures, mean=augment.mean, std=augment.std)


def explanation_strips(found: Explanation) -> tuple[bytes, bytes]:
    """Return the frames of an explanation's clip, and the map drawn over them, as pictures.

    Evidence is drawn relative to its mean over the clip: most of a logit is common to all places.
    """
    step = max(len(found.frames) // STRIP_FRAMES, 1)
    maps = found.maps - found.maps.mean() if found.method == "evidence" else found.maps
    drawn = overlay(found.frames, maps)
    return (
        film_strip(found.frames[::step], height=STRIP_HEIGHT),
        film_strip(drawn[::step], height=STRIP_HEIGHT),
    )
