"""What the page says of a video: classes along it, evidence, reconstruction, nearest videos."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hiera_video.app.reading import (
    ClipSource,
    UploadedVideo,
    UploadReader,
    WindowClip,
    read_upload,
)
from hiera_video.app.uploads import AppLimits
from hiera_video.errors import ConfigError
from hiera_video.eval.forward import compute_logits
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.runtime.precision import autocast
from hiera_video.viz.overlays import overlay
from hiera_video.viz.reconstructions import reconstruction_sheet
from hiera_video.viz.strips import film_strip
from hiera_video.workflows.explain import Explanation, explain_clip
from hiera_video.workflows.load_run import LoadedRun, require_classes, top_classes

TOPK = 5
MAE = "mae"
"""Name of the masked autoencoder's clip among `UploadedVideo.others`."""
STRIP_HEIGHT = 96
STRIP_FRAMES = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """The classes of a video, and the clips of which the page can show more."""

    video: UploadedVideo
    windows: tuple[tuple[float, ...], ...]
    """Probabilities of the classes of `top`, for each of `video.windows`."""
    top: tuple[tuple[str, float], ...]
    """(label, probability), the mean over the windows, most likely first."""
    clip: Tensor
    """[3, T, S, S], the middle crop of the window with the highest probability of the first class,
    normalised."""
    clip_seconds: tuple[float, float]
    """Start and end of that window."""


class Analyser:
    """A classifier and, where they are given, a masked autoencoder and a feature store.

    Args:
        run: The classifier.
        limits: Limits of the page.
        mae: A run of masked pre-training.

    Raises:
        ConfigError: `run` has no classes, or `mae` is no run of masked pre-training.
    """

    def __init__(self, run: LoadedRun, limits: AppLimits, mae: LoadedRun | None = None) -> None:
        require_classes(run)
        if mae is not None and not isinstance(mae.model, MaskedAutoencoderHiera):
            raise ConfigError(
                f"--mae {mae.config.out_dir}: is no run of masked pre-training; give one, such as "
                "the run that --run was fine-tuned from"
            )
        self.run, self.limits = run, limits
        self._mae = mae
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
            return self._classify(video)

    def _classify(self, video: UploadedVideo) -> Analysis:
        device = next(self.run.model.parameters()).device
        precision = self.run.config.test.precision
        count = int(1e9)
        with torch.inference_mode():
            windows = [
                dict(
                    top_classes(
                        self.run,
                        compute_logits(self.run.model, window.views.to(device), precision),
                        count,
                    )
                )
                for window in video.windows
            ]
        mean = {
            label: sum(window[label] for window in windows) / len(windows) for label in windows[0]
        }
        top = sorted(mean.items(), key=lambda item: -item[1])[:TOPK]
        first = top[0][0]
        best = max(range(len(windows)), key=lambda index: windows[index][first])
        return Analysis(
            video=video,
            windows=tuple(tuple(window[label] for label, _ in top) for window in windows),
            top=tuple(top),
            clip=middle_crop(video.windows[best]),
            clip_seconds=(video.windows[best].start_seconds, video.windows[best].end_seconds),
        )

    def explain(self, analysis: Analysis, label: str | None = None) -> Explanation:
        """Return the evidence for a class, by default the first, in the analysis's clip."""
        label = analysis.top[0][0] if label is None else label
        with self._lock:
            return explain_clip(self.run, analysis.clip, label, clip_seconds=analysis.clip_seconds)

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


def middle_crop(window: WindowClip) -> Tensor:
    """Return the middle crop of a window's clip, [3, T, S, S]."""
    return window.views[len(window.views) // 2]


def evidence_strips(explanation: Explanation) -> tuple[bytes, bytes]:
    """Return the frames of an explanation's clip, and the map drawn over them, as pictures."""
    step = max(len(explanation.frames) // STRIP_FRAMES, 1)
    drawn = overlay(explanation.frames, explanation.maps)
    return (
        film_strip(explanation.frames[::step], height=STRIP_HEIGHT),
        film_strip(drawn[::step], height=STRIP_HEIGHT),
    )
