"""The videos of a feature store that look like an upload."""

from __future__ import annotations

import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hiera_video.app.uploads import AppLimits
from hiera_video.data.loading.map_videos import map_videos
from hiera_video.data.loading.quarantine import OnOpen, QuarantinePolicy
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.errors import DecodeError
from hiera_video.features.engines import run_local
from hiera_video.features.search import SearchIndex
from hiera_video.features.store import FeatureStore, VideoFeatures
from hiera_video.utils.short_paths import short_paths
from hiera_video.video.options import Backend
from hiera_video.viz.sheet import Strip, contact_sheet
from hiera_video.workflows.extraction_plan import make_encoder, make_plan
from hiera_video.workflows.search import (
    Example,
    SearchResult,
    check_weights,
    config_of_store,
    decoder_of_store,
    search,
    window_frames,
)

COUNT = 5
"""Videos to show."""


class NearVideos:
    """Finds the videos of a feature store that look like an upload.

    Args:
        folder: The store.
        limits: Limits of the page.

    Raises:
        FeatureError: The store is damaged or empty, or its weights have moved or changed.
    """

    def __init__(self, folder: str, limits: AppLimits) -> None:
        self._store = FeatureStore(folder)
        config = config_of_store(self._store)
        data = replace(config.data, workers=1, deadline_seconds=limits.read_seconds)
        self._config = replace(config, data=data)
        self._encoder = make_encoder(config)
        check_weights(self._store, config, self._encoder.model)
        self._index = SearchIndex(self._store)
        self._policy = QuarantinePolicy(deadline_seconds=limits.read_seconds)

    def look_up(self, path: Path) -> bytes | str:
        """Return a contact sheet of the nearest videos, or why there is none."""
        video = self._extract(path)
        if not len(video.start_seconds):
            if video.status == "short":
                return "this video is shorter than a window of the store"
            return "this video cannot be read with the settings of the store"
        return self.sheet(self.find(video))

    def find(self, video: VideoFeatures) -> list[SearchResult]:
        """Return the nearest window of each of the nearest videos."""
        example = Example(video=video, is_stored=False)
        return search(self._store, [example], COUNT, each_video_once=True, index=self._index)

    def _extract(self, path: Path) -> VideoFeatures:
        record = Record(path=str(path), label=None, row=0)
        manifest = Manifest(records=(record,), class_names=None, multi_label=False, source="upload")
        threads = torch.get_num_threads()
        with tempfile.TemporaryDirectory() as folder:
            features = replace(self._config.features, output=folder)
            config = replace(self._config, features=features)
            try:
                run_local(make_plan(config, manifest, self._encoder), self._encoder, progress=False)
            finally:
                torch.set_num_threads(threads)
            return FeatureStore(folder)[0]

    def sheet(self, results: list[SearchResult]) -> bytes:
        """Return a contact sheet of the windows that were found."""
        names = short_paths(result.path for result in results)
        frames: Any = map_videos(
            WindowFrames(decoder_of_store(self._store)),
            results,
            workers=1,
            quarantine=self._policy,
        )
        with closing(frames):
            strips = [
                Strip(
                    title=f"{result.similarity:.3f}  {names[result.path]}  "
                    f"{result.start_seconds:.1f}–{result.end_seconds:.1f} s",
                    frames=found,
                )
                for result, found in zip(results, frames)
            ]
        return contact_sheet(strips)


class WindowFrames:
    """Reads frames of windows that were found; workers call it."""

    def __init__(self, decoder: Backend) -> None:
        self._decoder = decoder

    def __call__(self, result: SearchResult, on_open: OnOpen) -> NDArray[np.uint8] | None:
        """Return some frames of a window; None if its video cannot be read."""
        try:
            on_open(result.path)
        except DecodeError:  # it hung before
            return None
        return window_frames(result.path, self._decoder, result.start_seconds, result.end_seconds)
